# SPDX-License-Identifier: GPL-2.0-only
"""Race statistics: parsed from test output, and summed over soak runs."""

from fixtures.guest.race.python_race import RaceReport as RaceReport
from fixtures.guest.race.python_race import TimedCall
from fixtures.host.model.race_stats import collect_race_stats, parse_overlaps
from fixtures.host.report import cover_letter
from tests.unit.host.report import run_samples


def test_race_stats_count_every_repetition_of_a_soak_run() -> None:
    run = run_samples.run(run_samples.soaked((60, 20, 19), (120, 30, 10)))
    (race,) = collect_race_stats([run])
    assert (race.rounds, race.overlaps) == (50, 29)
    assert parse_overlaps(run.tests[0].stdout) == (20, 19)


def _race(rounds: int, apart: int, seconds: float) -> str:
    calls = [TimedCall(0, 2, 0)] * rounds
    others = [TimedCall(1, 3, 0)] * (rounds - apart) + [TimedCall(5, 6, 0)] * apart
    return str(RaceReport(7, {"one": calls, "other": others}, seconds=seconds))


def test_race_output_of_the_guest_is_parsed() -> None:
    run = run_samples.run(
        run_samples.result("a.py::a", stdout=f"x\n{_race(20, 5, 0)}\n{_race(7, 0, 1.5)}\nend"),
        run_samples.result("a.py::b", stdout="seed 1: many rounds, 2 overlapped"),
    )
    (race,) = collect_race_stats([run])
    assert (race.test.name, race.rounds, race.overlaps) == ("a", 27, 22)
    assert "Races: 1 test, 27 rounds; the actors overlapped in 22 of these." in cover_letter.render(
        [run], ()
    )
