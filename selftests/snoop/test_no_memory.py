# SPDX-License-Identifier: GPL-2.0-only
"""A snoop table that gets no memory misses flows and counts them; nobody else is hurt by it."""

from contextlib import ExitStack

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import cgroup, conntrack, faults, flowtable, process, uapi
from fixtures.guest.plugin import Connect
from fixtures.guest.stop_points import hold
from fixtures.guest.topology import Plan, Router
from fixtures.guest.traffic import TCP_PROTOCOL, UDP_PROTOCOL
from fixtures.guest.wait import wait_for

FLOWS = 48
BUCKETS = 64
"""Of a new hash table (HASH_DEFAULT_SIZE, lib/rhashtable.c); it takes as many tuples, in need."""
LARGER_TABLE = "kmalloc-2k"
"""The cache that a hash table of twice as many buckets, of 8 bytes each, comes from."""


def _told(router: Router) -> tuple[int, int]:
    """How many flows the snoop table has, and how many it has missed."""
    seen = flowtable.find("spy", "all", router.namespace)
    assert seen.entries is not None
    assert seen.missed is not None
    return seen.entries, seen.missed


@pytest.mark.clause("SN-7", "SN-9", "MM-10")
@pytest.mark.deadline(120)
def test_flows_that_its_creators_cgroup_has_no_room_for(
    own_router: Router, own_connection: Connect, own_flowmap: int, cleanup: ExitStack
) -> None:
    group = cgroup.make("fm-full", cleanup)

    def make() -> None:
        group.enter()
        flowtable.create_snoop("spy", "all", own_router.namespace)

    process.in_child(make)
    wait_for("the cgroup to be left", lambda: not (group.path / "cgroup.procs").read_text())
    cleanup.callback(group.remove_limit)
    keys: list[uapi.Key] = []
    for number in range(FLOWS):
        group.tighten()
        flow = own_connection(UDP_PROTOCOL, 4, server_port=7000 + number).offloaded()
        keys += flow.keys
    held, missed = _told(own_router)
    assert missed > 0
    assert held + missed == FLOWS
    assert [bpf.lookup(own_flowmap, key).dir for key in keys] == [0, 1] * FLOWS

    group.remove_limit()
    own_connection(UDP_PROTOCOL, 4, server_port=6999).offloaded()
    assert _told(own_router) == (held + 1, missed)


@pytest.mark.clause("SN-7", "SN-9")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("own_router", [Plan(tables="split")], indirect=True)
def test_flows_that_the_hash_table_cannot_grow_for(
    own_router: Router, own_connection: Connect
) -> None:
    """What grows it in the background is held, and what does on the spot gets no memory.

    The source tables, of which each has half of the flows, need not grow.
    """
    if why := faults.missing():
        pytest.skip(why)
    flowtable.create_snoop("spy", "all", own_router.namespace)
    room = BUCKETS // 2
    with hold("rht_deferred_worker", comm="kworker", seconds=15) as stop:
        with faults.starving(LARGER_TABLE):
            for number in range(room + 4):
                protocol = (TCP_PROTOCOL, UDP_PROTOCOL)[number % 2]
                own_connection(protocol, 4, server_port=7000 + number).offloaded()
            stop.reached()
            assert _told(own_router) == (room, 4)
        stop.release()
    own_connection(UDP_PROTOCOL, 4, server_port=6999).offloaded()
    assert _told(own_router) == (room + 1, 4)
    # None of those that were missed has left half of itself behind.
    conntrack.flush(own_router.namespace)
    wait_for("the entries to go", lambda: _told(own_router) == (0, 4))
