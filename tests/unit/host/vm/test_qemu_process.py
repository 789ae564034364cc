# SPDX-License-Identifier: GPL-2.0-only
"""Memory of a VM: mapped from a snapshot, or copied where the snapshot cannot be opened."""

import os
from pathlib import Path

import pytest

from fixtures.host.vm.qemu_process import VM
from fixtures.host.vm.snapshot import MemoryFile, Snapshot


@pytest.mark.parametrize(
    ("writable", "savable", "is_own"),
    [(True, False, False), (False, False, True), (True, True, True)],
    ids=["restored", "restored-from-read-only-cache", "saved-later"],
)
def test_memory_of_restored_vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool, savable: bool, is_own: bool
) -> None:
    snapshot = Snapshot(tmp_path / "state")
    snapshot.directory.mkdir()
    snapshot.memory.write_bytes(b"memory")
    monkeypatch.setattr(os, "access", lambda *_: writable)
    vm = VM.__new__(VM)
    vm.folder = tmp_path / "vm"
    vm.folder.mkdir()
    memory = vm._memory(snapshot, savable)
    own = MemoryFile(vm.folder / "memory", shared=True)
    assert memory == (own if is_own else MemoryFile(snapshot.memory, shared=False))
    assert own.path.exists() == is_own
