# SPDX-License-Identifier: GPL-2.0-only
"""Partial insertion: the second direction of a flow does not fit into a full hash table.

The first direction was inserted before, so a lookup may hold the entry that is removed again.
"""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel import fault_injection
from fixtures.guest.kernel.syncpoints import FAR, NEAR, hold
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe, require_faults
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, key_of
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near", "readers_give_way")

MAX_FLOWS = 40


def _fill(fd: int, conns: list[Connection]) -> None:
    """Exchange packets until the map's hash table refuses a flow."""
    for conn in conns:
        for _ in range(3):
            conn.exchange()
        if bpf.missed(fd):
            return
    raise AssertionError(f"the hash table accepted all {len(conns)} flows")


@pytest.mark.clause("FM-9", "SN-7", "RT-1")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("own_router", [Plan(tables="split")], ids=describe, indirect=True)
def test_lookup_has_a_flow_whose_other_direction_does_not_get_in(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    """A lookup that holds a half-inserted entry survives its removal, and later lookups miss."""
    require_faults()
    conn = own_connection(UDP_PROTOCOL, 4)
    # Alternate between two source tables, so that neither is full.
    others = [
        own_connection(UDP_PROTOCOL, (4, 6)[number % 2], server_port=7001 + number)
        for number in range(MAX_FLOWS)
    ]
    key = key_of(conn.tuple, own_router.inside.index)
    sender = interleavings.adder(conn)
    reader = child_process.Waiting(lambda: bpf.found(own_flowmap, key) is not None, NEAR)
    # A lookup that found the entry gets the output device, then writes to the entry.
    with (
        hold("dev_get_by_index_rcu", task=reader.pid) as lookup,
        hold("rhashtable_insert_slow", offset=0, cpu=FAR) as insertion,
        fault_injection.without(fault_injection.LARGER_HASH_TABLE),
    ):
        _fill(own_flowmap, others)
        missed_before = bpf.missed(own_flowmap)
        sender.begin()
        insertion.reached(busy=True)
        reader.begin()
        lookup.reached(busy=True)
        insertion.release()
        sender.join()
        assert bpf.missed(own_flowmap) == missed_before + 1
        assert bpf.found(own_flowmap, key) is None
        lookup.release()
        assert reader.join() is True
    ct_entry = conn.entry()
    assert ct_entry is not None
    assert ct_entry.offloaded
    assert bpf.found(own_flowmap, key) is None
