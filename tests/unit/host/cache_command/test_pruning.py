# SPDX-License-Identifier: GPL-2.0-only
"""What is listed and what is removed, on a real cache folder with real locks of other processes."""

import os
import time
from pathlib import Path

import pytest

from fixtures.host.cache_command import cli, pruning
from fixtures.host.cache_command.inventory import Entry, list_entries
from fixtures.host.cache_command.pruning import prune_automatically
from fixtures.host.util.cache_use import LOCK_FILE, shared_cache_use
from fixtures.host.util.file_lock import shared_lock
from tests.unit.host.util.lock_holder import lock_holder

DAY = 86400.0
MIB = 1 << 20

# Path in cache or build, and the file in it whose time shows the last use.
ENTRIES = {
    "cache/kernels/aaa": "metadata.json",
    "cache/work/tree-plain": "lock",
    "cache/sources/linux_1": ".",
    "cache/snapshots/bbb": "state",
    "cache/bpf/ccc": ".",
    "build/reports/1": ".",
}
LEFTOVERS = (
    "cache/kernels/.aaa.x1", "cache/bpf/.new-x", "cache/images/staging-x",
    "cache/sources/.linux_1.x",
    "cache/snapshots/bbb/state.7.part", "cache/work/tree-plain/src.new", "cache/second/120000-abc",
    "build/run/120000-abc",
)  # fmt: skip


def make(root: Path, name: str, age: float, marker: str = ".") -> Path:
    """Make an entry of 1 MiB that was used some seconds ago."""
    path = root / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "data").write_bytes(bytes(MIB))
    if marker != ".":
        (path / marker).touch()
    touch(path / marker, age)
    return path


def touch(path: Path, age: float) -> None:
    """Set a file's time to some seconds ago."""
    then = time.time() - age
    os.utime(path, (then, then))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a cache and a build folder; each entry is a day older than the next."""
    for name in LEFTOVERS:
        make(tmp_path, name, 2 * DAY)
    for days, (name, marker) in enumerate(reversed(ENTRIES.items()), start=1):
        make(tmp_path, name, days * DAY, marker)
    make(tmp_path, "cache/ledger/base", 100 * DAY)
    make(tmp_path, "cache/ccache/0", 100 * DAY)
    (tmp_path / "cache/sources/linux_1.lock").touch()
    (tmp_path / "cache/kvm.json").write_text("{}")
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWMAP_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(cli, "BUILD", tmp_path / "build")
    return tmp_path


def left(root: Path) -> set[str]:
    """Return which entries and leftovers exist."""
    return {name for name in (*ENTRIES, *LEFTOVERS) if (root / name / "data").exists()}


def entries(root: Path) -> dict[str, Entry]:
    """Return the entries by path below the root."""
    found = list_entries(root / "cache", root / "build")
    return {entry.path.relative_to(root).as_posix(): entry for entry in found}


def test_every_entry_is_listed_with_size_and_use(root: Path) -> None:
    found = entries(root)
    assert set(found) == {*ENTRIES, *LEFTOVERS, "cache/ledger", "cache/ccache"}
    assert {name for name, entry in found.items() if entry.leftover} == set(LEFTOVERS)
    assert all(MIB <= entry.size < 2 * MIB for entry in found.values())
    used = [found[name].last_used for name in ENTRIES]
    assert used == sorted(used)


def test_hard_links_count_once(root: Path) -> None:
    os.link(root / "cache/sources/linux_1/data", root / "cache/work/tree-plain/more")
    assert entries(root)["cache/work/tree-plain"].size < 2 * MIB


def test_list_shows_total_and_limit(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE_LIMIT", "2")
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "build/run" in shown
    assert "(left by a killed run)" in shown
    assert "MiB of 2.0 GiB count: " in shown.splitlines()[-1]
    assert left(root) == {*ENTRIES, *LEFTOVERS}


def test_prune_removes_leftovers_only_below_limit(root: Path) -> None:
    assert cli.main(["prune"]) == 0
    assert left(root) == set(ENTRIES)


def test_prune_removes_longest_unused_above_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ccache and history have 1 MiB each; two entries fit below the limit.
    monkeypatch.setenv("FLOWMAP_CACHE_LIMIT", str(4.5 * MIB / (1 << 30)))
    assert cli.main(["prune"]) == 0
    assert left(root) == {"cache/snapshots/bbb", "cache/bpf/ccc", "build/reports/1"}


def test_prune_older_removes_by_last_use(root: Path) -> None:
    assert cli.main(["prune", "--older", "4.5"]) == 0
    assert left(root) == {
        "cache/sources/linux_1", "cache/snapshots/bbb", "cache/bpf/ccc", "build/reports/1",
    }  # fmt: skip


def test_prune_all_keeps_history(root: Path) -> None:
    assert cli.main(["prune", "--all"]) == 0
    assert left(root) == set()
    assert (root / "cache/ledger/base/data").exists()
    assert not list((root / "cache/kernels").iterdir())


def test_prune_beside_a_run_keeps_what_is_recent_or_locked(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(root / "cache/kernels/aaa/metadata.json", 60)
    touch(root / "cache/bpf/.new-x", 60)
    (root / "build/run/120000-abc/alive").touch()
    with (
        shared_lock(root / "cache" / LOCK_FILE),
        lock_holder(root / "cache/work/tree-plain/lock"),
        lock_holder(root / "build/run/120000-abc/alive"),
        lock_holder(root / "build/reports/1"),
    ):
        assert cli.main(["prune", "--all"]) == 0
    assert left(root) == {
        "cache/kernels/aaa", "cache/bpf/.new-x", "cache/work/tree-plain", "build/run/120000-abc",
        "build/reports/1",
    }  # fmt: skip
    assert "left 5 entries" in capsys.readouterr().out


def test_lock_of_build_tree_stays_beside_a_run(root: Path) -> None:
    with shared_lock(root / "cache" / LOCK_FILE):
        assert cli.main(["prune", "--all"]) == 0
    assert [path.name for path in (root / "cache/work/tree-plain").iterdir()] == ["lock"]
    assert "cache/work/tree-plain" not in entries(root)


def test_automatic_prune_removes_old_entries_once_a_day(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv("FLOWMAP_CACHE_LIMIT", str(MIB / (1 << 30)))
    touch(root / "cache/bpf/ccc", 60)
    with shared_cache_use(root / "cache"):
        prune_automatically(root / "cache", root / "build", said.append)
        assert left(root) == {"cache/bpf/ccc", "build/reports/1"}
        assert "FLOWMAP_CACHE_LIMIT" in said[0]
        make(root, LEFTOVERS[0], 2 * DAY)
        prune_automatically(root / "cache", root / "build", said.append)
        assert LEFTOVERS[0] in left(root)
        touch(root / "cache" / pruning._CHECK_FILE, 2 * DAY)
        prune_automatically(root / "cache", root / "build", said.append)
        assert LEFTOVERS[0] not in left(root)


@pytest.mark.parametrize(
    ("limit", "line"),
    [("many", "FLOWMAP_CACHE_LIMIT=many: give"), ("-1", "FLOWMAP_CACHE_LIMIT=-1: give")],
)
def test_malformed_limit_is_one_line(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    line: str,
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE_LIMIT", limit)
    assert cli.main(["prune"]) == 2
    assert line in capsys.readouterr().err
    assert left(root) == {*ENTRIES, *LEFTOVERS}


def test_limit_of_zero_means_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE_LIMIT", "0")
    assert cli.main(["prune"]) == 0
    assert left(root) == set(ENTRIES)


def test_absent_cache_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "absent"))
    monkeypatch.setattr(cli, "BUILD", tmp_path / "build")
    for argv in ([], ["list"], ["prune", "--all"]):
        assert cli.main(argv) == 0
    assert "removed 0 entries" in capsys.readouterr().out
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("name", "lock"),
    [("kept/a", "kept"), ("cores/a", "cores"), ("bisect/linux-1", "bisect/linux-1/lock")],
)
def test_machines_cores_and_bisections_are_listed_and_not_removed_in_use(
    root: Path, name: str, lock: str
) -> None:
    path = make(root, f"build/{name}", DAY)
    (root / "build" / lock).parent.mkdir(exist_ok=True)
    assert entries(root)[f"build/{name}"].size >= MIB
    with lock_holder(root / "build" / lock):
        assert cli.main(["prune", "--all"]) == 0
        assert path.exists()
    assert cli.main(["prune", "--all"]) == 0
    assert not (path / "data").exists()


def test_saved_machines_and_cores_count_and_the_oldest_go(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make(root, "build/kept/old", 50 * DAY)
    core = make(root, "build/cores/new", DAY / 2)
    # All entries of the cache, ccache and history fit below the limit.
    monkeypatch.setenv("FLOWMAP_CACHE_LIMIT", str(8.5 * MIB / (1 << 30)))
    assert cli.main(["prune"]) == 0
    assert not machine.exists()
    assert core.exists()
    assert left(root) == set(ENTRIES)
    # A younger core displaces the oldest entry of the cache.
    make(root, "build/cores/newer", 60)
    assert cli.main(["prune"]) == 0
    assert left(root) == set(ENTRIES) - {"cache/kernels/aaa"}
