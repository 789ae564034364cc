# SPDX-License-Identifier: GPL-2.0-only
"""Limits of a process, read from fake proc and cgroup folders, and from real affinity."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.host.util.host_limits import read_limits

GIB = 1 << 30
HOST_MIB = 16 << 10


@pytest.fixture(autouse=True)
def _sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host have 16 CPUs."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a proc of a host with 16 GiB available, and no cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    available = f"MemTotal: 1 kB\nMemAvailable: {HOST_MIB << 10} kB\n"
    (tmp_path / "proc/meminfo").write_text(available)
    return tmp_path / "proc"


def group(root: Path, path: str, **files: str) -> None:
    """Make a cgroup; ``cpu_max`` is the file ``cpu.max``."""
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / path / name.replace("_", ".", 1)).write_text(text + "\n")


def test_host_without_cgroups(proc: Path, tmp_path: Path) -> None:
    found = read_limits(proc, tmp_path / "cgroup")
    assert (found.cpus, found.memory_mib) == (16, HOST_MIB)
    assert (found.cpus_by, found.memory_by) == ("host", "host")


@pytest.mark.parametrize("shown", ["/", "/docker/0123", "/unit.slice/run.scope"])
def test_limits_of_cgroup_v2_and_of_its_parents(proc: Path, tmp_path: Path, shown: str) -> None:
    """A container shows ``/`` or its host's path, and mounts its own group as the root."""
    (proc / "self/cgroup").write_text(f"0::{shown}\n")
    root = tmp_path / "cgroup"
    group(root, "", cpu_max="max 100000", memory_max=str(8 * GIB), memory_current=str(3 * GIB),
          memory_stat=f"anon 1\ninactive_file {GIB}")  # fmt: skip
    if shown == "/unit.slice/run.scope":
        group(root, "unit.slice", cpu_max="250000 100000", memory_max="max")
        group(root, "unit.slice/run.scope", cpu_max="max 100000", memory_max="max")
    found = read_limits(proc, root)
    assert (found.memory_mib, found.memory_by) == (6 << 10, "cgroup")
    expected = (2, "cgroup") if shown == "/unit.slice/run.scope" else (16, "host")
    assert (found.cpus, found.cpus_by) == expected


def test_limits_of_cgroup_v1(proc: Path, tmp_path: Path) -> None:
    (proc / "self/cgroup").write_text("5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n")
    root = tmp_path / "cgroup"
    for name, text in {
        "memory/memory.limit_in_bytes": str(4 * GIB),
        "memory/memory.usage_in_bytes": str(GIB),
        "memory/memory.stat": "total_inactive_file 0",
        "cpu,cpuacct/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = read_limits(proc, root)
    assert (found.cpus, found.memory_mib) == (1, 3 << 10), "half a CPU is one worker"
    (root / "memory/memory.limit_in_bytes").write_text(str((1 << 63) - 4096))
    (root / "cpu,cpuacct/cpu.cfs_quota_us").write_text("-1")
    found = read_limits(proc, root)
    assert (found.cpus, found.memory_mib) == (16, HOST_MIB)


def test_exhausted_cgroup_has_no_memory(proc: Path, tmp_path: Path) -> None:
    (proc / "self/cgroup").write_text("0::/\n")
    group(tmp_path / "cgroup", "", memory_max=str(GIB), memory_current=str(2 * GIB))
    assert read_limits(proc, tmp_path / "cgroup").memory_mib == 0


@pytest.fixture
def one_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pin this process to one CPU, as taskset(1) does."""
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_cpu")
def test_affinity_limits_cpus(proc: Path, tmp_path: Path) -> None:
    assert read_limits(proc, tmp_path / "cgroup").cpus == 1
