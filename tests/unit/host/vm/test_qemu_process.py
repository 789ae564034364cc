# SPDX-License-Identifier: GPL-2.0-only
"""Memory of a VM, and what is said of a full disk that QEMU does not name."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.util.errors import InfraError
from fixtures.host.vm.qemu_process import VM
from fixtures.host.vm.snapshot import MemoryFile, Snapshot
from tests.unit.host.util.small_file_system import fill, small_file_system


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


def _vm(folder: Path, **attributes: Any) -> VM:
    vm = VM.__new__(VM)
    vm.folder = folder
    vm._stack = ExitStack()
    for name, value in attributes.items():
        setattr(vm, name, value)
    return vm


def test_snapshot_on_full_disk_is_the_error_of_the_disk(tmp_path: Path) -> None:
    """QEMU itself says "Unable to write to command: Broken pipe"."""
    reply = {"status": "failed", "error-desc": "Unable to write to command: Broken pipe"}
    vm = _vm(tmp_path, qmp_command=lambda *_, **__: reply)
    with pytest.raises(InfraError, match="Broken pipe"):
        vm._save_devices(Snapshot(tmp_path / "state"))
    with small_file_system(tmp_path / "cache", 64) as cache:
        fill(cache)
        with pytest.raises(OSError, match="No space left"):
            vm._save_devices(Snapshot(cache / "state"))


@pytest.mark.parametrize(
    ("code", "full", "text"),
    [
        (0, True, ""),
        (None, True, ""),
        (-signal.SIGKILL, True, "QEMU was killed by SIGKILL"),
        (-signal.SIGBUS, False, "QEMU was killed by SIGBUS"),
        (-signal.SIGBUS, True, "QEMU was killed by SIGBUS: "),
    ],
)
def test_memory_file_without_place_on_the_disk_is_named(
    tmp_path: Path, code: int | None, full: bool, text: str
) -> None:
    process = cast(Any, SimpleNamespace(poll=lambda: code))
    with small_file_system(tmp_path / "run", 64 if full else 4096) as folder:
        if full:
            fill(folder)
        problem = _vm(folder, process=process).exit_problem()
    assert problem.startswith(text)
    assert ("free disk space" in problem) is (full and code == -signal.SIGBUS)
