# SPDX-License-Identifier: GPL-2.0-only
"""The memory of a map itself: whom it is charged to, and that it is given back."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import btf, memcg, modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns

_MAPS_PER_NETNS = 60
_NAMESPACES = ("fm-charge1", "fm-charge2")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_RCU_EXPEDITED = Path("/sys/kernel/rcu_expedited")


def _charge(group: memcg.Cgroup) -> int:
    return group.memory_stat()["slab_unreclaimable"]


def _create_maps(namespaces: tuple[str, ...], count: int) -> list[int]:
    fds = []
    for namespace in namespaces:
        with netns.entered(namespace):
            fds += [bpf.flowmap_create() for _ in range(count)]
    return fds


@pytest.mark.clause("MM-10.4")
@pytest.mark.deadline(60)
@pytest.mark.usefixtures("flowmap_loaded")
def test_maps_own_memory_is_charged_to_creator_memcg(
    make_netns: MakeNetns, cleanup: ExitStack
) -> None:
    """The map and its view are charged to the creator's memcg, and uncharged when it is freed.

    "Memory is charged to the creator's memcg" (MM-10), without any flow.
    """
    namespaces = tuple(make_netns(name) for name in _NAMESPACES)
    group = memcg.create("fm-maps", cleanup)
    # Creating a map waits for grace periods.
    cleanup.callback(_RCU_EXPEDITED.write_text, _RCU_EXPEDITED.read_text())
    _RCU_EXPEDITED.write_text("1\n")
    bpf.flowmap_type()  # cached here, so that the child allocates less
    maps = len(namespaces) * _MAPS_PER_NETNS
    expected = maps * (
        btf.struct_size("bpf_map") + btf.struct_size("nf_flow_snoop", modules.FLOWTABLE_MODULE)
    )
    # Each CPU may batch charges of less than a page.
    slack = (os.cpu_count() or 1) * _PAGE

    def create_and_free() -> None:
        group.enter()
        # The first map of each namespace makes its index, and the process its own structures.
        fds = _create_maps(namespaces, 1)
        before = _charge(group)
        more = _create_maps(namespaces, _MAPS_PER_NETNS)
        wait_for("the maps to be charged", lambda: _charge(group) - before >= expected - slack)
        print(f"{maps} maps: charged {_charge(group) - before}, expected {expected}")
        for fd in more:
            os.close(fd)
        wait_for("the maps to be uncharged", lambda: _charge(group) - before <= slack)
        for fd in fds:
            os.close(fd)

    child_process.run_in_child(create_and_free)
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    group.wait_until_empty()
    dying = memcg.dying_cgroups()
    group.remove()
    wait_for("the cgroup to be freed", lambda: memcg.dying_cgroups() == dying)
