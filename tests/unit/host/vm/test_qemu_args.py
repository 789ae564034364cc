# SPDX-License-Identifier: GPL-2.0-only
"""QEMU command line and snapshot key."""

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.util import host_info
from fixtures.host.vm import qemu_args
from fixtures.host.vm.qemu_args import MachineConfig

MACHINE = MachineConfig(
    Path("/k/bzImage"), "k1", Path("/i/root,1.erofs"), "r1", "tcg", 1024, 2, ("a=b",)
)


@pytest.fixture(autouse=True)
def _qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_args, "qemu_version", lambda *_: "QEMU emulator version 7.2")


def test_qemu_args_share_nothing_with_the_host() -> None:
    words = " ".join(MACHINE.qemu_args(3, 4, 5))
    assert not [bad for bad in ("virtfs", "9p", "fsdev", "netdev", "readonly=off") if bad in words]
    assert "readonly=on" in words


def test_comma_in_path_is_escaped() -> None:
    assert "file=/i/root,,1.erofs," in " ".join(MACHINE.qemu_args(3, 4, 5))


def test_panic_makes_qemu_exit() -> None:
    assert "-no-reboot" in MACHINE.qemu_args(3, 4, 5)
    assert "panic=-1" in MACHINE.kernel_cmdline()


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_key": "k2"},
        {"root_key": "r2"},
        {"accel": "kvm"},
        {"memory_mib": 2048},
        {"cpus": 4},
        {"cmdline": ()},
    ],
    ids=["kernel", "root", "accel", "memory", "cpus", "cmdline"],
)
def test_snapshot_key_differs_for_other_vm(change: dict[str, object]) -> None:
    assert replace(MACHINE, **change).snapshot_key != MACHINE.snapshot_key  # type: ignore[arg-type]  # parametrised


def test_snapshot_key_ignores_paths() -> None:
    assert replace(MACHINE, kernel=Path("/other/bzImage")).snapshot_key == MACHINE.snapshot_key


def test_snapshot_key_under_kvm_differs_for_other_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for cpu in ("one", "other"):
        monkeypatch.setattr(host_info, "cpu_identity", lambda cpu=cpu: cpu)
        keys |= {replace(MACHINE, accel=accel).snapshot_key for accel in ("kvm", "tcg")}
    assert len(keys) == 3, "TCG emulates the same CPU everywhere"


def test_kernel_stamps_its_messages_whatever_its_configuration() -> None:
    assert "printk.time=1" in MACHINE.kernel_cmdline().split()


def test_x86_snapshot_key_does_not_depend_on_other_architectures() -> None:
    """Cached snapshots stay valid: their key has no field for the architecture."""
    assert "init=/usr/bin/virtme-ng-init" in MACHINE.kernel_cmdline()
    assert "console=ttyS0,115200" in MACHINE.kernel_cmdline()


def test_s390x_machine_has_channel_devices_and_the_sclp_console() -> None:
    machine = replace(MACHINE, arch="s390x")
    args = machine.qemu_args(3, 4, 5)
    assert args[0] == "qemu-system-s390x"
    assert {"virtio-blk-ccw,drive=root", "virtio-rng-ccw", "virtio-serial-ccw"} <= set(args)
    assert not [word for word in args if "pci" in word]
    words = machine.kernel_cmdline().split()
    assert {"console=ttysclp0", "init=/usr/bin/flowmap-init"} <= set(words)
    assert "no5lvl" not in words
    assert machine.snapshot_key != MACHINE.snapshot_key


def test_arm64_machine_has_pci_devices() -> None:
    args = replace(MACHINE, arch="arm64").qemu_args(3, 4, 5)
    assert args[0] == "qemu-system-aarch64"
    assert "virt,gic-version=3" in args
    assert "virtio-blk-pci,drive=root" in args
