# SPDX-License-Identifier: GPL-2.0-only
"""The leak check waits for late frees, and deletes namespaces that free those before them."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.guest.core import child_process
from fixtures.guest.net import netns
from fixtures.guest.runtime import kernel_state, leak_check
from fixtures.guest.runtime.kernel_state import KernelState, Leak
from tests.unit.guest.runtime.example_state import BEFORE


@pytest.fixture(autouse=True)
def _no_real_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the leak check away from the RCU and kmemleak files of the machine."""
    for name in ("_RCU_EXPEDITED", "_RCU_BARRIER", "_KMEMLEAK"):
        monkeypatch.setattr(leak_check, name, tmp_path / "absent")


def _read_states(monkeypatch: pytest.MonkeyPatch, read: Callable[[], KernelState]) -> None:
    """Let the leak check read these states, at first and again."""
    monkeypatch.setattr(kernel_state, "read_kernel_state", read)
    monkeypatch.setattr(kernel_state, "read_again", lambda _state, _leaks: read())


def test_struct_net_is_freed_by_next_netns_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    before = replace(BEFORE, slabs={"net_namespace": 1})
    pending = replace(before, slabs={"net_namespace": 4})
    flushed = replace(before, slabs={"net_namespace": 2})
    states = iter([pending, flushed])
    cycled: list[object] = []
    _read_states(monkeypatch, lambda: next(states))
    monkeypatch.setattr(child_process, "run_in_child", cycled.append)
    assert leak_check.find_leaks(before) == []
    assert cycled == [leak_check._cycle_netns]


class FakeClock:
    """Stands in for ``time`` in leak_check: sleeping takes exactly as long as asked for."""

    def __init__(self) -> None:
        """Start at an arbitrary time, in seconds."""
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds


def test_spare_netns_is_used_before_creating_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With a real clock one late wake-up on a busy host passes the whole timeout.
    monkeypatch.setattr(leak_check, "time", FakeClock())
    before = replace(BEFORE, slabs={"net_namespace": 2})  # one of them is the spare netns
    states = iter([4, 2, 5, 3, 3])
    cycled: list[object] = []
    _read_states(monkeypatch, lambda: replace(before, slabs={"net_namespace": next(states, 3)}))
    monkeypatch.setattr(child_process, "run_in_child", cycled.append)
    monkeypatch.setattr(netns, "open_unnamed", lambda: os.open("/dev/null", os.O_RDONLY))
    spare = leak_check.SpareNetns()
    assert leak_check.find_leaks(before, spare=spare) == []
    assert not cycled
    # The next test in this VM has no spare netns; a struct net that stays is still a leak.
    assert leak_check.find_leaks(before, seconds=0.5, spare=spare) == [
        "slab net_namespace: 1 object(s)"
    ]
    assert cycled


def test_no_netns_is_deleted_so_late_that_it_would_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow machine reads the counters for the last time just after such a deletion."""
    clock = FakeClock()
    monkeypatch.setattr(leak_check, "time", clock)
    deleted_at: list[float] = []
    monkeypatch.setattr(
        child_process, "run_in_child", lambda _: deleted_at.append(clock.now - 1000.0)
    )
    after = replace(BEFORE, maps=frozenset({1, 2}))
    _read_states(monkeypatch, lambda: after)
    # The intervals double from 0.1 s; the next deletion would be after 6.5 s.
    assert leak_check.find_leaks(BEFORE, seconds=7) == ["BPF map 2"]
    assert 3 < deleted_at[-1] < 4


def test_struct_net_that_is_never_freed_is_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    before = replace(BEFORE, slabs={"net_namespace": 1})
    _read_states(monkeypatch, lambda: replace(before, slabs={"net_namespace": 3}))
    monkeypatch.setattr(child_process, "run_in_child", lambda _: None)
    assert leak_check.find_leaks(before, seconds=0.1) == ["slab net_namespace: 2 object(s)"]


def test_leak_check_waits_for_late_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([replace(BEFORE, maps=frozenset({1, 2})), BEFORE])
    _read_states(monkeypatch, lambda: next(states))
    assert leak_check.find_leaks(BEFORE) == []


def test_leak_check_reports_after_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_states(monkeypatch, lambda: replace(BEFORE, maps=frozenset({1, 2})))
    monkeypatch.setattr(leak_check, "kmemleak", lambda _: ["kmemleak: unreferenced object"])
    assert leak_check.find_leaks(BEFORE, seconds=0) == [
        "BPF map 2",
        "kmemleak: unreferenced object",
    ]


def test_kmemleak_scan_waits_for_minimum_age(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kmemleak"
    file.write_text("")
    waited: list[float] = []
    monkeypatch.setattr(leak_check, "_KMEMLEAK", file)
    monkeypatch.setattr(time, "monotonic", lambda: 102.0)
    monkeypatch.setattr(time, "sleep", waited.append)
    file.write_text("unreferenced object 0x1\n  backtrace\n")
    monkeypatch.setattr(Path, "write_text", lambda *_: 0)
    assert leak_check.kmemleak(100.0) == ["kmemleak: unreferenced object 0x1\n  backtrace\n"]
    assert waited == pytest.approx([3.1])


def test_rcu_callbacks_run_before_anything_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    barrier = tmp_path / "do_rcu_barrier"
    barrier.write_text("0\n")
    monkeypatch.setattr(leak_check, "_RCU_BARRIER", barrier)
    seen: list[str] = []

    def read() -> KernelState:
        seen.append(barrier.read_text())
        return BEFORE

    _read_states(monkeypatch, read)
    assert leak_check.find_leaks(BEFORE) == []
    assert seen == ["1\n"]


def test_differences_that_do_not_count_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    after = replace(BEFORE, maps=frozenset({1, 2}), modules={"nf_flow_table": 1, "other": 1})
    _read_states(monkeypatch, lambda: after)

    def counts(leak: Leak) -> bool:
        return leak.name == "nf_flow_table"

    assert leak_check.find_leaks(BEFORE, seconds=0, counts=counts) == [
        "module nf_flow_table: 1 reference(s)"
    ]
    after = BEFORE
    assert leak_check.find_leaks(replace(BEFORE, maps=frozenset()), counts=counts) == []
