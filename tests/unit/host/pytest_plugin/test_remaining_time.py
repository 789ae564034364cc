# SPDX-License-Identifier: GPL-2.0-only
"""Estimate of the time that is left, with a clock that the test sets."""

from typing import Any

import pytest

from fixtures.host.pytest_plugin.remaining_time import RemainingTime, left_text


class Clock:
    """A clock that stands still until a test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _run(clock: Clock, known: dict[str, float], workers: int, tests: str) -> RemainingTime:
    left = RemainingTime(known, workers, clock)
    left.collected(tests)
    return left


@pytest.mark.parametrize(
    ("known", "workers", "seconds"),
    [
        ({"a": 10, "b": 20, "c": 30}, 1, 60),
        ({"a": 10, "b": 20, "c": 30}, 2, 30),
        ({"a": 10, "b": 10, "c": 90}, 2, 90),
        ({"a": 10, "b": 10}, 1, 30),
        ({}, 1, 9),
    ],
    ids=["one-worker", "two-workers", "one-long-test", "new-test", "no-history"],
)
def test_estimate_before_first_test(known: dict[str, float], workers: int, seconds: float) -> None:
    assert _run(Clock(), known, workers, "abc").seconds_left() == seconds


def test_slow_machine_scales_the_history() -> None:
    clock = Clock()
    left = _run(clock, {"a": 10, "b": 10, "c": 10}, 1, "abc")
    left.started("a")
    clock.now = 30
    left.finished("a")
    assert left.seconds_left() == 60
    left.started("b")
    clock.now = 45
    assert left.seconds_left() == 45
    clock.now = 500
    assert left.seconds_left() == 30  # b overruns; c has not begun


def test_tests_without_history_take_what_others_took() -> None:
    clock = Clock()
    left = _run(clock, {}, 1, "abc")
    left.started("a")
    clock.now = 7
    left.finished("a")
    assert left.seconds_left() == 14


def test_line_names_slowest_running_tests() -> None:
    clock = Clock()
    left = RemainingTime({}, 3, clock)
    left.collected(["selftests/x.py::a", "b", "c", "d"])
    left.started("selftests/x.py::a")
    clock.now = 40
    left.started("b")
    left.started("c")
    clock.now = 42
    left.finished("c")
    assert left.text() == "1/4 done, about 5 s left; running: x.py::a (42 s), b (2 s)"
    left.finished("b")
    left.finished("d")
    left.finished("selftests/x.py::a")
    assert left.text() == "4/4 done"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "about 5 s left"), (43, "about 45 s left"), (100, "about 2 min left"),
     (844, "about 14 min left")],
)  # fmt: skip
def test_remaining_time_is_rounded(seconds: float, text: str) -> None:
    assert left_text(seconds) == text


def test_unknown_test_can_finish() -> None:
    left: Any = _run(Clock(), {}, 1, "a")
    left.finished("never started")
    assert left.text().startswith("1/1 done")
