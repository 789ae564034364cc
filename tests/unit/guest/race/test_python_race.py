# SPDX-License-Identifier: GPL-2.0-only
"""A race that did not happen, or that went wrong, is not passed off as one that went well."""

import errno
import os

import pytest

from fixtures.guest.core import child_process
from fixtures.guest.race import python_race
from fixtures.guest.race.python_race import Call, Report

two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="races need two CPUs; this machine gives one"
)


def _report(*pairs: tuple[Call, Call]) -> Report:
    return Report(7, {"one": [a for a, _ in pairs], "other": [b for _, b in pairs]})


def test_overlap_is_measured() -> None:
    met = (Call(0, 10, 0), Call(5, 15, 0))
    missed = (Call(0, 10, 0), Call(10, 15, 0))
    report = _report(met, missed, met)
    assert (report.rounds, report.overlaps) == (3, 2)


def test_actors_that_never_met_fail() -> None:
    report = _report((Call(0, 1, 0), Call(2, 3, 0)))
    with pytest.raises(AssertionError, match="hardly met"):
        report.require({"one": {"ok"}, "other": {"ok"}})


def test_answer_that_is_not_allowed_fails_and_the_seed_is_named() -> None:
    report = _report((Call(0, 9, errno.EBUSY), Call(2, 3, 0)))
    with pytest.raises(AssertionError, match=r"one got \['EBUSY'\](.|\n)*seed 7"):
        report.require({"one": {"ok"}, "other": {"ok"}})
    report.require({"one": {"ok", "EBUSY"}, "other": {"ok"}})


@two_cpus
def test_run_gathers_the_answers() -> None:
    def refuse(number: int) -> None:
        if number % 2:
            raise FileNotFoundError(errno.ENOENT, "not there")

    report = python_race.run({"one": refuse, "other": lambda _: None}, 4, seed=1)
    assert report.rounds == 4
    assert report.outcomes("one") == {"ok": 2, "ENOENT": 2}
    assert report.seed == 1


@two_cpus
def test_actor_that_fails_fails_the_race_and_holds_nobody_up() -> None:
    def break_down(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(child_process.ChildFailed, match="ZeroDivisionError"):
        python_race.run({"one": break_down, "other": lambda _: None}, 1000)


def test_child_that_dies_is_told_from_one_that_raises() -> None:
    with pytest.raises(child_process.ChildFailed, match="died with wait status"):
        child_process.in_child(lambda: os._exit(3))
    assert child_process.in_child(os.getpid) != os.getpid()
