# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots on disk: complete or absent, whatever the file system and its programs can do."""

from pathlib import Path

import pytest

from fixtures.host.util.subprocess_util import CommandError
from fixtures.host.vm.snapshot import Snapshot
from tests.unit.host.util.small_file_system import small_file_system


def publish(folder: Path, memory: bytes, durable: bool = False) -> Snapshot:
    """Save a snapshot with this memory."""
    snapshot = Snapshot(folder / "state", durable)
    partial = snapshot.make_partial()
    partial.devices.write_bytes(b"devices")
    (folder / "memory").write_bytes(memory)
    partial.move_memory_in(folder / "memory")
    snapshot.publish(partial)
    return snapshot


@pytest.mark.parametrize("durable", [False, True])
def test_published_snapshot_is_complete(tmp_path: Path, durable: bool) -> None:
    memory = bytes(1 << 16) + b"used" + bytes(1 << 16)
    snapshot = publish(tmp_path, memory, durable)
    assert snapshot.memory.read_bytes() == memory
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("program", ["exit 1", None], ids=["fails", "absent"])
def test_snapshot_does_not_need_fallocate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """NFS, older overlay file systems and others cannot punch holes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "mv").symlink_to("/bin/mv")
    if program:
        (tools / "fallocate").write_text(f"#!/bin/sh\n{program}\n")
        (tools / "fallocate").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    (tmp_path / "cache").mkdir()
    assert publish(tmp_path / "cache", b"memory").memory.read_bytes() == b"memory"


def test_full_disk_leaves_no_snapshot(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "cache", 64) as cache:
        snapshot = Snapshot(cache / "state")
        partial = snapshot.make_partial()
        (tmp_path / "memory").write_bytes(bytes(1 << 20))
        with pytest.raises(CommandError, match="No space left"):
            partial.move_memory_in(tmp_path / "memory")
        assert not snapshot.exists()
        snapshot.remove_partials()
        assert list(cache.iterdir()) == []
