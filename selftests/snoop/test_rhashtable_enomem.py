# SPDX-License-Identifier: GPL-2.0-only
"""Full hash tables that cannot grow for lack of memory: only their own flows are missed."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import fault_injection
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import (
    OpenConnection,
    require_fault_injection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_UDP, Connection, flow_from_conntrack

FLOW_COUNT = 40
"""More flows (two tuples each) than one hash table takes without growing; two tables take more."""


def _mirrored(flowmap: int, router: Router, conn: Connection) -> bool:
    """Return whether the map has a connection's flow; it must have both directions or none."""
    ct_entry = conn.conntrack_entry()
    assert ct_entry is not None
    original, reply = (
        bpf.lookup_or_none(flowmap, key) is not None
        for key in flow_from_conntrack(router, ct_entry).keys
    )
    assert original == reply, "only one direction is mirrored"
    return original


def _exchange_without_growth(
    connect: OpenConnection, versions: tuple[int, ...]
) -> list[Connection]:
    """Open connections and exchange a few packets on each while no hash table can grow."""
    conns = [
        connect(IPPROTO_UDP, versions[number % len(versions)], server_port=7000 + number)
        for number in range(FLOW_COUNT)
    ]
    with fault_injection.fail_slab_cache(fault_injection.HASH_TABLE_GROWTH_CACHE):
        for conn in conns:
            for _ in range(3):
                conn.exchange()
    return conns


@pytest.fixture(autouse=True)
def _require_fault_injection() -> None:
    require_fault_injection()


@pytest.mark.clause("SN-1.6", "SN-7.1", "SN-7.4", "RT-3.1")
@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="split")], ids=router_config_id, indirect=True
)
def test_index_that_cannot_grow_counts_missed_flows_in_each_view(
    private_router: Router, open_private_connection: OpenConnection, private_flowmap: int
) -> None:
    """The views of an index that cannot grow count missed flows; the source tables have all."""
    flowtable.create_snoop_table("spy", "all", private_router.namespace)
    conns = _exchange_without_growth(open_private_connection, (4, 6))
    held, missed = flowtable.snoop_counters("spy", "all", private_router.namespace)
    assert held > 0
    assert missed > 0
    assert held + missed == FLOW_COUNT
    assert all(conn.wait_offloaded() for conn in conns)
    # The views share the index.
    counts = bpf.flowmap_entry_count(private_flowmap), bpf.flowmap_missed_count(private_flowmap)
    assert counts == (held, missed)
    assert sum(_mirrored(private_flowmap, private_router, conn) for conn in conns) == held

    open_private_connection(IPPROTO_UDP, 4, server_port=6999).wait_offloaded()
    assert flowtable.snoop_counters("spy", "all", private_router.namespace) == (held + 1, missed)


@pytest.mark.clause("SN-2.5", "RT-3.1")
@pytest.mark.deadline(120)
def test_flows_refused_by_full_source_table_are_not_mirrored(
    private_router: Router, open_private_connection: OpenConnection, private_flowmap: int
) -> None:
    """Flows that a full source table refuses are neither mirrored nor counted as missed."""
    flowtable.create_snoop_table("spy", "all", private_router.namespace)
    conns = _exchange_without_growth(open_private_connection, (4,))
    held, missed = flowtable.snoop_counters("spy", "all", private_router.namespace)
    assert 0 < held < FLOW_COUNT
    assert missed == 0
    offloaded = [
        (ct_entry := conn.conntrack_entry()) is not None and ct_entry.offloaded for conn in conns
    ]
    assert sum(offloaded) == held
    assert [_mirrored(private_flowmap, private_router, conn) for conn in conns] == offloaded

    for conn in conns:
        flow = conn.wait_offloaded()
        assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]
    assert flowtable.snoop_counters("spy", "all", private_router.namespace) == (FLOW_COUNT, 0)
