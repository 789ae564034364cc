# SPDX-License-Identifier: GPL-2.0-only
"""Reading a VM's memory over QMP."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.host.introspection.physical_memory import CHUNK, paused, ram_ranges

GIB = 1 << 30


class FakeVM:
    """A VM whose memory is filled with the number of each chunk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []

    def qmp_command(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.commands.append(name)
        if name == "pmemsave":
            assert arguments["size"] == CHUNK
            number = arguments["val"] // CHUNK
            Path(arguments["filename"]).write_bytes(bytes([number % 256]) * CHUNK)
        return {}


def test_read_across_chunks_joins_them(tmp_path: Path) -> None:
    with paused(FakeVM(tmp_path)) as memory:
        assert memory.read(7 * CHUNK, 4) == b"\7\7\7\7"
        assert memory.read(8 * CHUNK - 2, 4) == b"\7\7\10\10"
        assert memory.read(CHUNK, 3 * CHUNK) == b"\1" * CHUNK + b"\2" * CHUNK + b"\3" * CHUNK


def test_chunk_is_read_once_per_pause(tmp_path: Path) -> None:
    vm = FakeVM(tmp_path)
    with paused(vm) as memory:
        for address in (0, 8, CHUNK - 1):
            memory.read(address, 1)
    with paused(vm) as memory:
        memory.read(0, 1)
    assert vm.commands == ["stop", "pmemsave", "cont", "stop", "pmemsave", "cont"]


def test_vm_is_resumed_after_exception(tmp_path: Path) -> None:
    vm = FakeVM(tmp_path)
    with pytest.raises(ZeroDivisionError), paused(vm):
        _ = 1 // 0
    assert vm.commands == ["stop", "cont"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (GIB, [(0, GIB)]),
        (2 * GIB, [(0, 2 * GIB)]),
        (3 * GIB, [(0, 2 * GIB), (4 * GIB, GIB)]),
    ],
    ids=["1GiB", "2GiB", "3GiB"],
)
def test_ram_ranges_of_large_vm_have_pci_hole(size: int, expected: list[tuple[int, int]]) -> None:
    assert ram_ranges(size) == expected
