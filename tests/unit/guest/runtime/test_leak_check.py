# SPDX-License-Identifier: GPL-2.0-only
"""Leaks are listed by kind and number; other changes of the kernel's state are not leaks."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.guest.core import child_process
from fixtures.guest.net import netns
from fixtures.guest.runtime import leak_check
from fixtures.guest.runtime.leak_check import KernelState

BEFORE = KernelState(
    modules={"nf_flow_table": 0},
    namespaces=frozenset({"old"}),
    namespace_count=2,
    devices=frozenset({"lo"}),
    maps=frozenset({1}),
    programs=frozenset({5}),
    links=frozenset(),
    conntrack=3,
    slabs={"nf_conntrack": 10},
)


def test_equal_states_are_no_leak() -> None:
    assert leak_check.difference(BEFORE, BEFORE) == []


def test_fewer_objects_and_unused_modules_are_no_leak() -> None:
    after = replace(
        BEFORE,
        modules={"nft_flow_offload": 0},
        maps=frozenset(),
        conntrack=0,
        slabs={"nf_conntrack": 2, "unknown before": 5},
    )
    assert leak_check.difference(BEFORE, after) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"modules": {"nf_flow_table": 2}}, "module nf_flow_table: 2 reference(s)"),
        ({"modules": {"new": 1}}, "module new: 1 reference(s)"),
        (
            {"modules": {"nf_flow_table": -1}},
            "module nf_flow_table: 1 reference(s) fewer than before",
        ),
        ({"modules": {"new": -2}}, "module new: 2 reference(s) fewer than before"),
        (
            {"namespaces": frozenset({"old", "fm"}), "namespace_count": 3},
            "network namespace fm",
        ),
        ({"namespace_count": 3}, "1 network namespace(s) without a name, held by a process"),
        ({"devices": frozenset({"lo", "veth0"})}, "network device veth0"),
        ({"maps": frozenset({1, 7})}, "BPF map 7"),
        ({"programs": frozenset({5, 6})}, "BPF program 6"),
        ({"links": frozenset({2})}, "BPF link 2"),
        ({"conntrack": 4}, "1 conntrack entry(s) in the initial netns"),
        ({"slabs": {"nf_conntrack": 12}}, "slab nf_conntrack: 2 object(s)"),
    ],
)
def test_additional_object_is_listed(change: dict[str, object], line: str) -> None:
    after = replace(BEFORE, **change)  # type: ignore[arg-type]  # one field at a time
    assert leak_check.difference(BEFORE, after) == [line]


def test_reference_put_twice_is_read_from_proc_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "modules"
    file.write_text(
        "nf_flow_table 65536 3 nft_flow_offload,nf_flow_table_inet, Live 0x0\n"
        "nf_flow_table_bpf_flowmap 16384 -1 - Live 0x0\n"
        "nft_compat 16384 1 [permanent], Live 0x0\n"
        "veth 16384 -1 - Unloading 0x0\n"
    )
    monkeypatch.setattr(leak_check, "_MODULES", file)
    assert leak_check._module_references() == {
        "nf_flow_table": 1,
        "nf_flow_table_bpf_flowmap": -1,
        "nft_compat": 1,
    }


def _slab_cache(folder: Path, name: str, objects: int, aliases: int = 0) -> None:
    cache = folder / name
    cache.mkdir()
    (cache / "shrink").write_text("")
    (cache / "objects").write_text(f"{objects} N0={objects}\n")
    (cache / "aliases").write_text(f"{aliases}\n")


def test_absent_slab_cache_has_no_objects_and_merged_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leak_check, "_SLABS", tmp_path)
    monkeypatch.setattr(leak_check, "SLAB_CACHES", ("here", "merged", "absent"))
    _slab_cache(tmp_path, "here", 7)
    _slab_cache(tmp_path, "merged", 3, aliases=1)
    assert leak_check._slab_objects() == {"here": 7, "absent": 0}
    assert leak_check.missing_slab_caches(leak_check.SLAB_CACHES) == ["absent"]


def test_slab_cache_that_appears_with_objects_is_a_leak() -> None:
    before = replace(BEFORE, slabs={"nf_flow_snoop": 0})
    after = replace(BEFORE, slabs={"nf_flow_snoop": 2})
    assert leak_check.difference(before, after) == ["slab nf_flow_snoop: 2 object(s)"]


def test_kernel_that_lists_no_slab_caches_misses_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leak_check, "_SLABS", tmp_path / "slab")
    assert leak_check._slab_objects() == {}
    assert leak_check.missing_slab_caches(["nf_flow_snoop"]) == []


def test_struct_net_is_freed_by_next_netns_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    before = replace(BEFORE, slabs={"net_namespace": 1})
    pending = replace(before, slabs={"net_namespace": 4})
    flushed = replace(before, slabs={"net_namespace": 2})
    states = iter([pending, flushed])
    cycled: list[object] = []
    monkeypatch.setattr(leak_check, "read_kernel_state", lambda: next(states))
    monkeypatch.setattr(leak_check, "kmemleak", lambda _: [])
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
    monkeypatch.setattr(
        leak_check,
        "read_kernel_state",
        lambda: replace(before, slabs={"net_namespace": next(states, 3)}),
    )
    monkeypatch.setattr(leak_check, "kmemleak", lambda _: [])
    monkeypatch.setattr(child_process, "run_in_child", cycled.append)
    monkeypatch.setattr(netns, "open_unnamed", lambda: os.open("/dev/null", os.O_RDONLY))
    spare = leak_check.SpareNetns()
    assert leak_check.find_leaks(before, spare=spare) == []
    assert not cycled
    # The next test in this VM has no spare netns; a struct net that stays is still a leak.
    assert leak_check.find_leaks(before, seconds=0.2, spare=spare) == [
        "slab net_namespace: 1 object(s)"
    ]
    assert cycled


def test_struct_net_that_is_never_freed_is_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    before = replace(BEFORE, slabs={"net_namespace": 1})
    monkeypatch.setattr(
        leak_check, "read_kernel_state", lambda: replace(before, slabs={"net_namespace": 3})
    )
    monkeypatch.setattr(leak_check, "kmemleak", lambda _: [])
    monkeypatch.setattr(child_process, "run_in_child", lambda _: None)
    assert leak_check.find_leaks(before, seconds=0.1) == ["slab net_namespace: 2 object(s)"]


def test_leak_check_waits_for_late_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([replace(BEFORE, maps=frozenset({1, 2})), BEFORE])
    monkeypatch.setattr(leak_check, "read_kernel_state", lambda: next(states))
    monkeypatch.setattr(leak_check, "kmemleak", lambda _: [])
    assert leak_check.find_leaks(BEFORE) == []


def test_leak_check_reports_after_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        leak_check, "read_kernel_state", lambda: replace(BEFORE, maps=frozenset({1, 2}))
    )
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
