# SPDX-License-Identifier: GPL-2.0-only
"""Reading a machine's memory through its monitor."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.host.introspection.physical_memory import CHUNK, ranges, standstill

GIB = 1 << 30


class Monitor:
    """A monitor whose machine has the number of each chunk all over that chunk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.heard.append(name)
        if name == "pmemsave":
            assert arguments["size"] == CHUNK
            number = arguments["val"] // CHUNK
            Path(arguments["filename"]).write_bytes(bytes([number % 256]) * CHUNK)
        return {}


def test_what_crosses_chunks_is_put_together(tmp_path: Path) -> None:
    with standstill(Monitor(tmp_path)) as memory:
        assert memory.read(7 * CHUNK, 4) == b"\7\7\7\7"
        assert memory.read(8 * CHUNK - 2, 4) == b"\7\7\10\10"
        assert memory.read(CHUNK, 3 * CHUNK) == b"\1" * CHUNK + b"\2" * CHUNK + b"\3" * CHUNK


def test_each_chunk_is_read_once_while_the_machine_stands_still(tmp_path: Path) -> None:
    machine = Monitor(tmp_path)
    with standstill(machine) as memory:
        for address in (0, 8, CHUNK - 1):
            memory.read(address, 1)
    with standstill(machine) as memory:
        memory.read(0, 1)
    assert machine.heard == ["stop", "pmemsave", "cont", "stop", "pmemsave", "cont"]


def test_machine_goes_on_whatever_happens(tmp_path: Path) -> None:
    machine = Monitor(tmp_path)
    with pytest.raises(ZeroDivisionError), standstill(machine):
        _ = 1 // 0
    assert machine.heard == ["stop", "cont"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (GIB, [(0, GIB)]),
        (2 * GIB, [(0, 2 * GIB)]),
        (3 * GIB, [(0, 2 * GIB), (4 * GIB, GIB)]),
    ],
)
def test_ram_of_a_large_machine_has_a_hole(size: int, expected: list[tuple[int, int]]) -> None:
    assert ranges(size) == expected
