# SPDX-License-Identifier: GPL-2.0-only
"""A race without overlap, with an unexpected outcome or a failed actor is a failure."""

import errno
import os

import pytest

from fixtures.guest.core import child_process
from fixtures.guest.race import python_race
from fixtures.guest.race.python_race import RaceReport, TimedCall

two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="races need two CPUs; this machine has one"
)


def _report(*pairs: tuple[TimedCall, TimedCall]) -> RaceReport:
    return RaceReport(7, {"one": [a for a, _ in pairs], "other": [b for _, b in pairs]})


def test_overlapping_rounds_are_counted() -> None:
    overlapping = (TimedCall(0, 10, 0), TimedCall(5, 15, 0))
    disjoint = (TimedCall(0, 10, 0), TimedCall(10, 15, 0))
    report = _report(overlapping, disjoint, overlapping)
    assert (report.rounds, report.overlaps) == (3, 2)


def test_race_without_overlap_fails() -> None:
    report = _report((TimedCall(0, 1, 0), TimedCall(2, 3, 0)))
    with pytest.raises(AssertionError, match="overlapped in too few rounds"):
        report.require_outcomes({"one": {"ok"}, "other": {"ok"}})


def test_unexpected_outcome_fails_with_seed() -> None:
    report = _report((TimedCall(0, 9, errno.EBUSY), TimedCall(2, 3, 0)))
    with pytest.raises(AssertionError, match=r"one got \['EBUSY'\](.|\n)*seed 7"):
        report.require_outcomes({"one": {"ok"}, "other": {"ok"}})
    report.require_outcomes({"one": {"ok", "EBUSY"}, "other": {"ok"}})


@two_cpus
def test_run_collects_outcomes() -> None:
    def refuse(number: int) -> None:
        if number % 2:
            raise FileNotFoundError(errno.ENOENT, "not there")

    report = python_race.run({"one": refuse, "other": lambda _: None}, 4, seed=1)
    assert report.rounds == 4
    assert report.outcomes("one") == {"ok": 2, "ENOENT": 2}
    assert report.seed == 1


@two_cpus
def test_failing_actor_fails_race_without_blocking_others() -> None:
    def fail(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(child_process.ChildFailed, match="ZeroDivisionError"):
        python_race.run({"one": fail, "other": lambda _: None}, 1000)


def test_killed_child_is_distinguished_from_exception() -> None:
    with pytest.raises(child_process.ChildFailed, match="died with wait status"):
        child_process.run_in_child(lambda: os._exit(3))
    assert child_process.run_in_child(os.getpid) != os.getpid()


@two_cpus
def test_race_is_repeated_until_enough_rounds_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    overlapping = (TimedCall(0, 10, 0), TimedCall(5, 15, 0))
    disjoint = (TimedCall(0, 10, 0), TimedCall(10, 15, 0))
    seeds: list[int | None] = []

    def run_once(*_: object, seed: int | None = None) -> RaceReport:
        seeds.append(seed)
        return _report(overlapping, disjoint)

    monkeypatch.setattr(python_race, "run", run_once)
    actors: dict[str, python_race.Actor] = {"one": lambda _: None, "other": lambda _: None}
    report = python_race.run_until_overlap(actors, 2, overlaps=3, seed=5)
    assert (report.rounds, report.overlaps, report.seed) == (6, 3, 5)
    assert seeds == [5, 6, 7]
    with pytest.raises(AssertionError, match="overlapped in fewer than 3 rounds"):
        python_race.run_until_overlap(actors, 2, overlaps=3, attempts=2)
