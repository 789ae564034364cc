# SPDX-License-Identifier: GPL-2.0-only
"""Curves of soak runs over time."""

from fixtures.host.report import soak_race_curves
from fixtures.host.report.html_report import render
from tests.unit.host.report import run_samples


def test_soak_run_is_plotted_over_time() -> None:
    run = run_samples.run(
        run_samples.soaked((60, 20, 19), (180, 30, 10)), run_samples.soaked((120, 5, 5))
    )
    assert soak_race_curves.points(run) == [
        soak_race_curves.Point(0.0, 20, 19),
        soak_race_curves.Point(1.0, 25, 24),
        soak_race_curves.Point(2.0, 55, 34),
    ]
    drawn = soak_race_curves.curves("base", run)
    assert drawn
    assert drawn.last == soak_race_curves.Point(2.0, 55, 34)
    assert drawn.rounds == "0.0,101.8 300.0,87.3 600.0,0.0"
    assert drawn.overlaps == "0.0,104.7 300.0,90.2 600.0,61.1"
    page = render([run], ())
    assert f'<polyline class="rounds" points="{drawn.rounds}"/>' in page
    assert "55 rounds</span> and" in page


def test_soak_run_of_one_repetition_is_plotted_without_width() -> None:
    drawn = soak_race_curves.curves("base", run_samples.run(run_samples.soaked((60, 20, 10))))
    assert drawn
    assert (drawn.rounds, drawn.overlaps) == ("0.0,0.0", "0.0,80.0")


def test_plain_run_has_no_plot() -> None:
    run = run_samples.run(run_samples.result(stdout="seed 1: 20 rounds, 19 overlapped\n"))
    assert soak_race_curves.curves("base", run) is None
    assert "over the time of the soak run" not in render([run], ())
