# SPDX-License-Identifier: GPL-2.0-only
"""Thousands of flow maps at once: all mirror one flow, and all are freed."""

import os
import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.runtime.hypothesis_support import iterations_scale
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

MAP_COUNT = min(10_000, 1_000 * iterations_scale() ** 2)
"""10,000 with --soak, fewer otherwise: 10,000 maps take minutes under TCG."""
_SAMPLE_STEP = MAP_COUNT // 20
_MIN_MAP_BYTES = 1024
"""Lower bound of a map's memory in bytes; a smaller result means that it was not counted."""

_MEMINFO = Path("/proc/meminfo")
_RCU_EXPEDITED = Path("/sys/kernel/rcu_expedited")
_SYS_SLAB = Path("/sys/kernel/slab")


@pytest.fixture
def _raised_fd_limit(cleanup: ExitStack) -> None:
    """Raise RLIMIT_NOFILE and expedite grace periods: creating a map waits for two."""
    cleanup.callback(_RCU_EXPEDITED.write_text, _RCU_EXPEDITED.read_text())
    _RCU_EXPEDITED.write_text("1\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    cleanup.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MAP_COUNT, 2 * MAP_COUNT))


def _unreclaimable_slab() -> int:
    """Return the bytes of unreclaimable slab memory (SUnreclaim)."""
    lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    return int(lines["SUnreclaim"].split()[0]) * 1024


def _unreclaimable_slab_after_shrink() -> int:
    """Return the same after the slab caches were shrunk.

    KASAN's quarantine holds freed objects until their cache is shrunk (kasan_cache_shrink(),
    mm/kasan/common.c).
    """
    for cache in _SYS_SLAB.glob("kmalloc-*"):
        (cache / "shrink").write_text("1\n")
    return _unreclaimable_slab()


def _map_ids() -> set[int]:
    return set(bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID))


@pytest.mark.soak
@pytest.mark.clause("MM-4", "SN-9", "SN-6", "SN-8", "RT-3")
@pytest.mark.usefixtures("_raised_fd_limit")
@pytest.mark.deadline(120)
def test_thousands_of_maps_mirror_one_flow_and_are_freed(
    private_router: Router, open_private_connection: OpenConnection, flowmap_loaded: str
) -> None:
    """Thousands of maps mirror one flow, miss it after its deletion, and give their memory back."""
    # The flow must not expire while the maps are created.
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    conn = open_private_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    slab_before, other_ids = _unreclaimable_slab(), _map_ids()
    fds: list[int] = []
    try:
        with netns.entered(private_router.namespace):
            fds += (bpf.flowmap_create() for _ in range(MAP_COUNT))
        grown = _unreclaimable_slab() - slab_before
        assert grown > MAP_COUNT * _MIN_MAP_BYTES
        assert modules.refcount(flowmap_loaded) == MAP_COUNT
        assert len(_map_ids() - other_ids) == MAP_COUNT
        for fd in fds[::_SAMPLE_STEP]:
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]

        # One deletion removes the flow from every map.
        conntrack.delete(conn.tuple, private_router.namespace)
        for fd in fds[::_SAMPLE_STEP]:
            assert [bpf.lookup_or_none(fd, key) for key in flow.keys] == [None, None]
    finally:
        for fd in fds:
            os.close(fd)
    wait_for("the maps to be freed", lambda: modules.refcount(flowmap_loaded) == 0, 30)
    assert _map_ids() == other_ids
    # Partly used slabs stay allocated; leaked maps would take more than a third.
    wait_for(
        "the slab memory to be freed",
        lambda: _unreclaimable_slab_after_shrink() - slab_before < grown // 3,
        30,
        interval=0.2,
    )
    modules.unload(flowmap_loaded)
