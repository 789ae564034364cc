# SPDX-License-Identifier: GPL-2.0-only
"""Full hash tables that cannot grow for lack of memory: only their own flows are missed."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import fault_injection
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe, require_faults
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, flow_of

FLOW_COUNT = 40
"""More flows (two tuples each) than one hash table takes without growing, fewer than two do."""


def _mirrored(flowmap: int, router: Router, conn: Connection) -> bool:
    """Return whether the map has a connection's flow; it must have both directions or none."""
    ct_entry = conn.entry()
    assert ct_entry is not None
    original, reply = (
        bpf.found(flowmap, key) is not None for key in flow_of(router, ct_entry).keys
    )
    assert original == reply, "only one direction is mirrored"
    return original


def _exchange_without_growth(connect: Connect, versions: tuple[int, ...]) -> list[Connection]:
    """Open connections and exchange a few packets on each while no hash table can grow."""
    conns = [
        connect(UDP_PROTOCOL, versions[number % len(versions)], server_port=7000 + number)
        for number in range(FLOW_COUNT)
    ]
    with fault_injection.without(fault_injection.LARGER_HASH_TABLE):
        for conn in conns:
            for _ in range(3):
                conn.exchange()
    return conns


@pytest.fixture(autouse=True)
def _require_fault_injection() -> None:
    require_faults()


@pytest.mark.clause("SN-7", "RT-3")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("own_router", [Plan(tables="split")], ids=describe, indirect=True)
def test_snoop_table_that_cannot_grow_misses_flows(
    own_router: Router, own_connection: Connect, own_flowmap: int
) -> None:
    """A snoop table that cannot grow counts missed flows; the source tables have every flow."""
    flowtable.create_snoop("spy", "all", own_router.namespace)
    conns = _exchange_without_growth(own_connection, (4, 6))
    held, missed = flowtable.snooped("spy", "all", own_router.namespace)
    assert held > 0
    assert missed > 0
    assert held + missed == FLOW_COUNT
    assert all(conn.offloaded() for conn in conns)
    # The map has its own hash table, which is as full as the snoop table's.
    assert sum(_mirrored(own_flowmap, own_router, conn) for conn in conns) == held

    own_connection(UDP_PROTOCOL, 4, server_port=6999).offloaded()
    assert flowtable.snooped("spy", "all", own_router.namespace) == (held + 1, missed)


@pytest.mark.clause("SN-2", "SN-8", "RT-3")
@pytest.mark.deadline(120)
def test_flows_of_a_table_that_cannot_grow_are_in_no_copy(
    own_router: Router, own_connection: Connect, own_flowmap: int
) -> None:
    """Flows that a full source table refuses are neither mirrored nor counted as missed."""
    flowtable.create_snoop("spy", "all", own_router.namespace)
    conns = _exchange_without_growth(own_connection, (4,))
    held, missed = flowtable.snooped("spy", "all", own_router.namespace)
    assert 0 < held < FLOW_COUNT
    assert missed == 0
    offloaded = [(ct_entry := conn.entry()) is not None and ct_entry.offloaded for conn in conns]
    assert sum(offloaded) == held
    assert [_mirrored(own_flowmap, own_router, conn) for conn in conns] == offloaded

    for conn in conns:
        flow = conn.offloaded()
        assert [bpf.lookup(own_flowmap, key).dir for key in flow.keys] == [0, 1]
    assert flowtable.snooped("spy", "all", own_router.namespace) == (FLOW_COUNT, 0)
