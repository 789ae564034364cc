# SPDX-License-Identifier: GPL-2.0-only
"""Flow tables and views of a flow index, read by the debug information of a C file.

flow_index.c is compiled to a library and loaded; drgn reads the memory of this process.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import drgn
import pytest

from fixtures.host.introspection import flow_tables
from fixtures.host.introspection.rhashtable import CorruptTable

SOURCE = Path(__file__).with_name("flow_index.c")
NAMESPACE = 4711

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


class Memory:
    """The library's variables, as drgn objects."""

    def __init__(self, library: ctypes.CDLL, path: Path) -> None:
        self._library = library
        self.prog = drgn.Program(drgn.host_platform)
        self.prog.set_pid(os.getpid())
        self.prog.extra_module(path.name, create=True).try_file(path, force=True)

    def address(self, name: str) -> int:
        """Return the address of a variable."""
        return ctypes.addressof(ctypes.c_char.in_dll(self._library, name))

    def pointer(self, kind: str, name: str) -> drgn.Object:
        """Return a pointer to a variable."""
        return drgn.Object(self.prog, f"struct {kind} *", self.address(name))

    def read_index(self) -> list[dict[str, Any]]:
        """Read the index; its first view belongs to map 12."""
        index = self.pointer("nf_flow_index", "fm_index")
        return flow_tables.read_index(index, NAMESPACE, {self.address("fm_map"): 12})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the C file."""
    path = tmp_path_factory.mktemp("flow_index") / "flow_index.so"
    subprocess.run(
        ["gcc", "-g", "-O0", "-Wall", "-Werror", "-shared", "-fPIC", "-o", path, SOURCE], check=True
    )
    return path


@pytest.fixture
def memory(library: Path, tmp_path: Path) -> Memory:
    """Load an own copy of the library, whose variables a test may change."""
    own = Path(shutil.copy(library, tmp_path))
    return Memory(ctypes.CDLL(str(own)), own)


def _places(table: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Return last byte of the source address, direction and zone of each entry."""
    return sorted(
        (bytes.fromhex(entry["src"])[3], entry["direction"], entry["zone"])
        for entry in table["entries"]
    )


FIRST = [(1, 0, 5), (1, 1, 5)]
SECOND = [(2, 0, 0), (2, 1, 6)]


def test_index_has_all_entries_and_views_have_theirs(memory: Memory) -> None:
    index, flow_map, table, leaving = memory.read_index()
    kinds = [found["kind"] for found in (index, flow_map, table, leaving)]
    assert kinds == ["index", "snoop", "snoop", "leaving"]
    assert (index["count"], _places(index)) == (5, [*FIRST, *SECOND, (3, 0, 5)])
    assert (flow_map["map"], flow_map["count"], _places(flow_map)) == (12, 1, FIRST)
    assert (table["map"], table["count"], _places(table)) == (None, 2, [*FIRST, *SECOND])
    assert (leaving["count"], _places(leaving)) == (0, FIRST)
    assert (flow_map["missed"], table["missed"]) == (0, 40)
    assert {found["namespace"] for found in (index, flow_map, table)} == {NAMESPACE}
    assert {found["buckets"] for found in (index, flow_map, table)} == {4}


def test_entry_has_members_of_tuple_and_number_of_views(memory: Memory) -> None:
    index, flow_map, *_ = memory.read_index()
    entry = next(entry for entry in flow_map["entries"] if entry["direction"] == 1)
    assert entry["flow"] == memory.address("fm_flows")
    assert (entry["flow_namespace"], entry["flags"]) == (NAMESPACE, 1)
    assert entry["dst"] == "c6336401" + 24 * "0"
    assert (entry["src_port"], entry["dst_port"], entry["iifindex"]) == (0x1234, 80, 7)
    assert (entry["l3proto"], entry["l4proto"], entry["tun_l4proto"]) == (2, 17, 0)
    assert entry["encap"] == [[100, 0x8100], [0, 0]]
    assert sorted(entry["snoopers"] for entry in index["entries"]) == [0, 1, 1, 3, 3]


def test_source_table_has_zone_of_each_direction_and_views_of_each_flow(memory: Memory) -> None:
    table = flow_tables.read_source_table(memory.pointer("nf_flowtable", "fm_source"))
    assert (table["kind"], table["namespace"], table["count"]) == ("source", NAMESPACE, 4)
    assert _places(table) == [(1, 0, 5), *SECOND, (3, 1, 5)]
    # The third flow has been deleted: its pointer is NF_FLOW_SNOOP_DEAD.
    assert sorted(entry["snoopers"] for entry in table["entries"]) == [0, 1, 1, 3]


def test_entry_of_another_index_raises(memory: Memory) -> None:
    entry = memory.pointer("nf_flow_snoop_entry", "fm_entries")
    pointer = ctypes.c_uint64.from_address(entry.index.address_)
    pointer.value = memory.address("fm_other_index")
    with pytest.raises(CorruptTable, match="another index"):
        memory.read_index()
