# SPDX-License-Identifier: GPL-2.0-only
"""Leaks are listed by kind and number; other changes of the kernel's state are not leaks."""

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.guest.runtime import kernel_state
from fixtures.guest.runtime.kernel_state import KernelState, Leak
from tests.unit.guest.runtime.example_state import BEFORE


def _texts(before: KernelState, after: KernelState) -> list[str]:
    return [leak.text for leak in kernel_state.difference(before, after)]


def test_equal_states_are_no_leak() -> None:
    assert kernel_state.difference(BEFORE, BEFORE) == []


def test_fewer_objects_and_unused_modules_are_no_leak() -> None:
    after = replace(
        BEFORE,
        modules={"nft_flow_offload": 0},
        maps=frozenset(),
        conntrack=0,
        slabs={"nf_conntrack": 2, "unknown before": 5},
    )
    assert kernel_state.difference(BEFORE, after) == []


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
        ({"cgroups": {"cgroup": 2, "memory cgroup": 2}}, "1 cgroup(s)"),
        ({"cgroups": {"cgroup": 1, "memory cgroup": 5}}, "3 memory cgroup(s)"),
        ({"conntrack": 4}, "1 conntrack entry(s) in the initial netns"),
        ({"slabs": {"nf_conntrack": 12}}, "slab nf_conntrack: 2 object(s)"),
    ],
)
def test_additional_object_is_listed(change: dict[str, object], line: str) -> None:
    after = replace(BEFORE, **change)  # type: ignore[arg-type]  # one field at a time
    assert _texts(BEFORE, after) == [line]


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
    monkeypatch.setattr(kernel_state, "_MODULES", file)
    assert kernel_state._module_references() == {
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
    monkeypatch.setattr(kernel_state, "_SLABS", tmp_path)
    names = ("here", "merged", "absent")
    _slab_cache(tmp_path, "here", 7)
    _slab_cache(tmp_path, "merged", 3, aliases=1)
    assert kernel_state._slab_objects(names) == {"here": 7, "absent": 0}
    assert kernel_state.missing_slab_caches(names) == ["absent"]


def test_slab_cache_that_appears_with_objects_is_a_leak() -> None:
    before = replace(BEFORE, slabs={"nf_flow_snoop": 0})
    after = replace(BEFORE, slabs={"nf_flow_snoop": 2})
    assert _texts(before, after) == ["slab nf_flow_snoop: 2 object(s)"]


def test_kernel_that_lists_no_slab_caches_misses_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_state, "_SLABS", tmp_path / "slab")
    assert kernel_state._slab_objects(["nf_flow_snoop"]) == {}
    assert kernel_state.missing_slab_caches(["nf_flow_snoop"]) == []


def test_dying_cgroups_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cgroup.stat"
    monkeypatch.setattr(kernel_state, "_CGROUP_STAT", file)
    assert kernel_state._cgroup_counts() == {}
    file.write_text(
        "nr_descendants 1\nnr_subsys_memory 2\nnr_dying_descendants 3\nnr_dying_subsys_memory 4\n"
    )
    assert kernel_state._cgroup_counts() == {"cgroup": 4, "memory cgroup": 6}


def test_cgroups_that_were_not_counted_before_are_no_leak() -> None:
    before = replace(BEFORE, cgroups={})
    assert kernel_state.difference(before, BEFORE) == []


def test_only_counters_that_differ_are_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_state, "_SLABS", tmp_path)
    _slab_cache(tmp_path, "rtable", 4)
    _slab_cache(tmp_path, "nf_conntrack", 9)
    file = tmp_path / "modules"
    file.write_text("nf_flow_table 65536 1 - Live 0x0\n")
    monkeypatch.setattr(kernel_state, "_MODULES", file)
    state = replace(BEFORE, slabs={"rtable": 5, "nf_conntrack": 10})
    leaks = [Leak("slabs", "rtable", ""), Leak("modules", "nf_flow_table", "")]
    assert kernel_state.read_again(state, leaks) == replace(
        state, modules={"nf_flow_table": 1}, slabs={"rtable": 4, "nf_conntrack": 10}
    )
    assert kernel_state.read_again(state, []) == state
