# SPDX-License-Identifier: GPL-2.0-only
"""Flow maps by the thousand at once, and all of them gone."""

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
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.runtime.hypothesis_support import effort
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL

MANY = min(10_000, 1_000 * effort() ** 2)
"""Ten thousand in a campaign; they take minutes under emulation."""
_EVERY = MANY // 20
_SMALLEST = 1024
"""Bytes that a map takes at the very least; if it were less, it was not counted."""

_MEMINFO = Path("/proc/meminfo")
_EXPEDITED = Path("/sys/kernel/rcu_expedited")
_SLABS = Path("/sys/kernel/slab")


@pytest.fixture
def _room_for_many(cleanup: ExitStack) -> None:
    """As many descriptors, and short grace periods: making a map waits for two."""
    cleanup.callback(_EXPEDITED.write_text, _EXPEDITED.read_text())
    _EXPEDITED.write_text("1\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    cleanup.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MANY, 2 * MANY))


def _unreclaimable() -> int:
    """Bytes of slab memory that only their owners can give back."""
    lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    return int(lines["SUnreclaim"].split()[0]) * 1024


def _still_in_use() -> int:
    """The same, once KASAN has let go of what it keeps from being used again.

    It does when a cache shrinks (kasan_cache_shrink(), mm/kasan/common.c).
    """
    for cache in _SLABS.glob("kmalloc-*"):
        (cache / "shrink").write_text("1\n")
    return _unreclaimable()


def _maps() -> set[int]:
    return set(bpf.identities(bpf_attr.Command.MAP_GET_NEXT_ID))


@pytest.mark.campaign
@pytest.mark.clause("MM-4", "SN-9", "SN-6", "SN-8", "RT-3")
@pytest.mark.usefixtures("_room_for_many")
@pytest.mark.deadline(120)
def test_many_maps_hold_a_flow_and_are_freed(
    own_router: Router, own_connection: Connect, flowmap_module: str
) -> None:
    # The flow is not to expire while the maps are made.
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    talk = own_connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()
    before, others = _unreclaimable(), _maps()
    fds: list[int] = []
    try:
        with netns.entered(own_router.namespace):
            fds += (bpf.flowmap_create() for _ in range(MANY))
        grown = _unreclaimable() - before
        assert grown > MANY * _SMALLEST
        assert modules.references(flowmap_module) == MANY
        assert len(_maps() - others) == MANY
        for fd in fds[::_EVERY]:
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]

        # The flow leaves all of them at one moment.
        conntrack.delete(talk.tuple, own_router.namespace)
        for fd in fds[::_EVERY]:
            assert [bpf.found(fd, key) for key in flow.keys] == [None, None]
    finally:
        for fd in fds:
            os.close(fd)
    wait_for("the maps to be freed", lambda: modules.references(flowmap_module) == 0, 30)
    assert _maps() == others
    # Slabs that are partly in use stay; a map that stayed would be more.
    wait_for(
        "the memory to come back", lambda: _still_in_use() - before < grown // 3, 30, interval=0.2
    )
    modules.unload(flowmap_module)
