# SPDX-License-Identifier: GPL-2.0-only
"""Refcounts of maps and of their module, compared with kernel memory as drgn reads it."""

import os
from pathlib import Path

import pytest

from fixtures.guest.bpf import instructions, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.drgn_client import POLL_INTERVAL, DrgnClient
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns

_XDP_PASS = 2


def _load_program_using(fd: int) -> int:
    program = instructions.load_map(1, fd) + instructions.return_value(_XDP_PASS)
    return prog_syscalls.prog_load(prog_syscalls.PROG_TYPE_XDP, program)


@pytest.mark.clause("MM-4.1", "MM-4.2", "MM-4.3", "MM-4.8")
def test_map_and_module_refcounts_match_kernel_memory(
    flowmap_loaded: str,
    make_netns: MakeNetns,
    make_flowmap: MakeFlowmap,
    bpffs: Path,
    guest_memory: DrgnClient,
) -> None:
    """fds, pins and programs count at the map; each map counts once at its module."""
    fd, other = (make_flowmap(make_netns(name)) for name in ("fm-held", "fm-other"))
    map_id = bpf.map_info(fd).id

    def refcounts_and_owner() -> tuple[int, int, str | None]:
        bpf_map = guest_memory.map_refcounts()[map_id]
        return bpf_map.refcount, bpf_map.user_refcount, bpf_map.owner_module

    assert refcounts_and_owner() == (1, 1, flowmap_loaded)
    second = bpf.map_fd_by_id(map_id)
    assert refcounts_and_owner() == (2, 2, flowmap_loaded)
    bpf.pin(fd, str(bpffs / "flows"))
    assert refcounts_and_owner() == (3, 3, flowmap_loaded)
    program = _load_program_using(fd)
    assert refcounts_and_owner() == (4, 3, flowmap_loaded)
    assert guest_memory.module_refcount(flowmap_loaded) == modules.refcount(flowmap_loaded) == 2

    os.close(second)
    (bpffs / "flows").unlink()
    os.close(fd)
    # RCU callbacks and work items drop these references later.
    wait_for(
        "only the program to hold the map",
        lambda: refcounts_and_owner()[:2] == (1, 0),
        interval=POLL_INTERVAL,
    )
    assert guest_memory.module_refcount(flowmap_loaded) == modules.refcount(flowmap_loaded) == 2
    os.close(program)
    os.close(other)

    def module_unreferenced() -> bool:
        return guest_memory.module_refcount(flowmap_loaded) == 0

    wait_for("the module to be free", module_unreferenced, interval=POLL_INTERVAL)
    assert not _map_ids_owned_by(guest_memory, flowmap_loaded)
    assert modules.refcount(flowmap_loaded) == 0


def _map_ids_owned_by(kernel_memory: DrgnClient, module: str) -> list[int]:
    return [
        map_id
        for map_id, bpf_map in kernel_memory.map_refcounts().items()
        if bpf_map.owner_module == module
    ]


@pytest.mark.clause("MM-5.1")
def test_failed_map_create_leaves_module_refcount_zero(
    flowmap_loaded: str, make_netns: MakeNetns, guest_memory: DrgnClient
) -> None:
    """A failed map creation leaves the module's refcount at zero and no map behind."""
    make_netns("fm-refused")
    before = guest_memory.module_refcount(flowmap_loaded)
    for number in range(5):
        with pytest.raises(OSError, match="Invalid argument"):
            bpf.flowmap_create(0 if number % 2 else 2, map_flags=0)
    assert guest_memory.module_refcount(flowmap_loaded) == before == 0
    assert not _map_ids_owned_by(guest_memory, flowmap_loaded)
