# SPDX-License-Identifier: GPL-2.0-only
"""Refcounts of maps and of their module, compared with kernel memory as drgn reads it."""

import os
import struct
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.drgn_client import LOOK, KernelMemory
from fixtures.guest.pytest_plugin.plugin_api import Flowmap, Namespaces

_LD_MAP_FD = struct.pack("<BB", 0x18, 0x11) + bytes(2)  # r1 = map; imm takes the fd
_PASS_AND_EXIT = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)


def _load_program_using(fd: int) -> int:
    load = _LD_MAP_FD + struct.pack("<i", fd) + bytes(8)
    return prog_syscalls.prog_load(prog_syscalls.PROG_TYPE_XDP, load + _PASS_AND_EXIT)


@pytest.mark.clause("MM-4")
def test_each_reference_is_counted_where_it_belongs(
    flowmap_module: str,
    namespace: Namespaces,
    make_flowmap: Flowmap,
    bpffs: Path,
    kernel_memory: KernelMemory,
) -> None:
    """fds, pins and programs count at the map; each map counts once at its module."""
    fd, other = (make_flowmap(namespace(name)) for name in ("fm-held", "fm-other"))
    map_id = bpf.map_info(fd).id

    def refcounts_and_owner() -> tuple[int, int, str | None]:
        bpf_map = kernel_memory.maps()[map_id]
        return bpf_map.references, bpf_map.users, bpf_map.owner

    assert refcounts_and_owner() == (1, 1, flowmap_module)
    second = bpf.map_by_id(map_id)
    assert refcounts_and_owner() == (2, 2, flowmap_module)
    bpf.pin(fd, str(bpffs / "flows"))
    assert refcounts_and_owner() == (3, 3, flowmap_module)
    program = _load_program_using(fd)
    assert refcounts_and_owner() == (4, 3, flowmap_module)
    assert kernel_memory.module_refs(flowmap_module) == modules.references(flowmap_module) == 2

    os.close(second)
    (bpffs / "flows").unlink()
    os.close(fd)
    # RCU callbacks and work items drop these references later.
    wait_for(
        "only the program to hold the map",
        lambda: refcounts_and_owner()[:2] == (1, 0),
        interval=LOOK,
    )
    assert kernel_memory.module_refs(flowmap_module) == modules.references(flowmap_module) == 2
    os.close(program)
    os.close(other)

    def module_unreferenced() -> bool:
        return kernel_memory.module_refs(flowmap_module) == 0

    wait_for("the module to be free", module_unreferenced, interval=LOOK)
    assert not _map_ids_owned_by(kernel_memory, flowmap_module)
    assert modules.references(flowmap_module) == 0


def _map_ids_owned_by(kernel_memory: KernelMemory, module: str) -> list[int]:
    return [map_id for map_id, bpf_map in kernel_memory.maps().items() if bpf_map.owner == module]


@pytest.mark.clause("MM-4", "MM-5")
def test_refused_creation_is_not_counted(
    flowmap_module: str, namespace: Namespaces, kernel_memory: KernelMemory
) -> None:
    """A failed map creation leaves the module's refcount at zero and no map behind."""
    namespace("fm-refused")
    before = kernel_memory.module_refs(flowmap_module)
    for number in range(5):
        with pytest.raises(OSError, match="Invalid argument"):
            bpf.flowmap_create(0 if number % 2 else 1, map_flags=0)
    assert kernel_memory.module_refs(flowmap_module) == before == 0
    assert not _map_ids_owned_by(kernel_memory, flowmap_module)
