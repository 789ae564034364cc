# SPDX-License-Identifier: GPL-2.0-only
"""Folders of failed tests, and the machines in them."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.execution import kept_machine
from fixtures.host.execution.saved_by_test import SavedByTest, folder_name
from fixtures.host.util.errors import UserError
from fixtures.host.util.file_lock import try_exclusive_lock
from fixtures.host.vm import qemu_args
from fixtures.host.vm.qemu_args import MachineConfig
from fixtures.host.vm.qemu_process import VM
from fixtures.host.vm.snapshot import Snapshot


@pytest.fixture
def store(tmp_path: Path) -> SavedByTest:
    return SavedByTest(tmp_path / "saved", "it.json", 2, "machine", "make one")


def _save(store: SavedByTest, nodeid: str, time: int) -> Path:
    folder = store.create(nodeid)
    store.complete(folder, {"nodeid": nodeid})
    os.utime(folder / "it.json", (time, time))
    return folder


def test_folder_name_of_a_test() -> None:
    nodeid = "selftests/lookup/test_hit.py::test_hit[ipv4-udp]"
    assert folder_name(nodeid) == "lookup-test_hit.py-test_hit-ipv4-udp"


def test_latest_is_found_by_no_name_and_each_by_a_part_of_its_id(store: SavedByTest) -> None:
    first = _save(store, "a.py::test_one", 1)
    second = _save(store, "a.py::test_two", 2)
    assert store.find("")[0] == second
    assert store.find("one")[0] == first
    assert store.find(first.name)[0] == first


def test_exact_id_wins_over_longer_ones(store: SavedByTest) -> None:
    first = _save(store, "a.py::test_one", 1)
    _save(store, "a.py::test_one_more", 2)
    assert store.find("a.py::test_one")[0] == first
    with pytest.raises(UserError, match=r"several(.|\n)*test_one_more"):
        store.find("test_on")


def test_oldest_is_removed_beyond_the_limit(store: SavedByTest) -> None:
    first = _save(store, "a.py::test_one", 1)
    _save(store, "a.py::test_two", 2)
    _save(store, "a.py::test_three", 3)
    assert not first.exists()


def test_missing_one_names_the_remedy_and_what_there_is(store: SavedByTest) -> None:
    with pytest.raises(UserError, match=r"no machine in .*: make one"):
        store.find("x")
    _save(store, "a.py::test_one", 1)
    with pytest.raises(UserError, match=r"no machine of 'x'(.|\n)*test_one"):
        store.find("x")


def test_incomplete_folder_is_not_found(store: SavedByTest) -> None:
    store.create("a.py::test_one")
    with pytest.raises(UserError, match="no machine in"):
        store.find("")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineConfig:
    monkeypatch.setattr(qemu_args, "qemu_version", lambda _: "QEMU emulator version 7.2")
    for name in ("bzImage", "root.erofs"):
        (tmp_path / name).touch()
    return MachineConfig(
        tmp_path / "bzImage", "k", tmp_path / "root.erofs", "r", "tcg", 1024, 2, ("nokaslr",)
    )


def _fake_vm(machine: MachineConfig) -> VM:
    def save_copy(snapshot: Snapshot) -> None:
        snapshot.directory.mkdir()

    return cast(VM, SimpleNamespace(machine=machine, save_copy=save_copy))


def test_kept_machine_is_found_with_its_configuration(
    store: SavedByTest, machine: MachineConfig
) -> None:
    kept = kept_machine.keep(_fake_vm(machine), "a.py::test_one", "call", "7.3.4 (base)", store)
    assert kept_machine.find("test_one", store) == kept
    assert kept.snapshot.exists()


def test_machine_whose_kernel_was_removed_is_refused(
    store: SavedByTest, machine: MachineConfig
) -> None:
    kept_machine.keep(_fake_vm(machine), "a.py::test_one", "call", "7.3.4 (base)", store)
    machine.kernel.unlink()
    with pytest.raises(UserError, match=r"bzImage was removed.*run the test again"):
        kept_machine.find("", store)


def test_machine_of_another_qemu_is_refused(
    store: SavedByTest, machine: MachineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_machine.keep(_fake_vm(replace(machine)), "a.py::test_one", "call", "7.3.4", store)
    monkeypatch.setattr(qemu_args, "qemu_version", lambda _: "QEMU emulator version 10")
    with pytest.raises(UserError, match="another QEMU"):
        kept_machine.find("", store)


def test_two_runs_do_not_save_at_the_same_time(store: SavedByTest) -> None:
    with store.saving("a.py::test_one"), try_exclusive_lock(store.base) as free:
        assert not free
    with try_exclusive_lock(store.base) as free:
        assert free
