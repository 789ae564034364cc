# SPDX-License-Identifier: GPL-2.0-only
"""Waiting ends with the condition, or says what did not come."""

import pytest

from fixtures.guest.core.polling import DeadlinePassed, wait_for


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_true_at_once_does_not_sleep() -> None:
    time = Time()
    assert wait_for("it", lambda: "yes", clock=time.clock, pause=time.pause) == "yes"
    assert time.slept == []


def test_waits_longer_each_time_up_to_a_limit() -> None:
    time = Time()
    wait_for("it", lambda: time.now > 2, 5, interval=0.01, clock=time.clock, pause=time.pause)
    assert time.slept[:3] == [0.01, 0.02, 0.04]
    assert max(time.slept) == pytest.approx(0.2)


def test_failure_says_what_was_awaited_and_seen() -> None:
    time = Time()
    with pytest.raises(DeadlinePassed, match=r"waited 3 s for the flow to go; last seen: \[\]"):
        wait_for("the flow to go", lambda: [], 3, clock=time.clock, pause=time.pause)


def test_deadlines_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMAP_DEADLINE_SCALE", "4")
    time = Time()
    with pytest.raises(DeadlinePassed, match="waited 8 s"):
        wait_for("it", lambda: None, 2, clock=time.clock, pause=time.pause)
    assert time.now >= 8


def test_asks_once_more_after_a_stall() -> None:
    time = Time()

    def stall(_: float) -> None:
        time.now += 1000

    answers = iter([False, True])
    assert wait_for("it", lambda: next(answers), 1, clock=time.clock, pause=stall)
