# SPDX-License-Identifier: GPL-2.0-only
"""`wait_for` returns when the condition is true, and raises at the deadline."""

import pytest

from fixtures.guest.core.polling import DeadlineExceeded, wait_for


class FakeTime:
    """A clock that advances only when the code under test sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_wait_for_true_condition_does_not_sleep() -> None:
    time = FakeTime()
    assert wait_for("it", lambda: "yes", clock=time.clock, sleep=time.sleep) == "yes"
    assert time.slept == []


def test_wait_for_doubles_interval_up_to_limit() -> None:
    time = FakeTime()
    wait_for("it", lambda: time.now > 2, 5, interval=0.01, clock=time.clock, sleep=time.sleep)
    assert time.slept[:3] == [0.01, 0.02, 0.04]
    assert max(time.slept) == pytest.approx(0.2)


def test_wait_for_deadline_error_has_description_and_last_result() -> None:
    time = FakeTime()
    with pytest.raises(DeadlineExceeded, match=r"waited 3 s for the flow to go; last seen: \[\]"):
        wait_for("the flow to go", lambda: [], 3, clock=time.clock, sleep=time.sleep)


def test_wait_for_deadline_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMAP_DEADLINE_SCALE", "4")
    time = FakeTime()
    with pytest.raises(DeadlineExceeded, match="waited 8 s"):
        wait_for("it", lambda: None, 2, clock=time.clock, sleep=time.sleep)
    assert time.now >= 8


def test_wait_for_polls_once_more_after_stall() -> None:
    time = FakeTime()

    def stall(_: float) -> None:
        time.now += 1000

    results = iter([False, True])
    assert wait_for("it", lambda: next(results), 1, clock=time.clock, sleep=stall)
