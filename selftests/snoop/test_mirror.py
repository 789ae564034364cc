# SPDX-License-Identifier: GPL-2.0-only
"""Contents of a snoop table: every flow of every source table of its netns, and no other."""

from itertools import count

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import Connect, Flowmap, Namespaces, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL


@pytest.mark.clause("SN-2", "SN-4")
@pytest.mark.parametrize("router", [Plan(tables="split")], ids=describe, indirect=True)
def test_flows_of_several_source_tables_are_all_there(
    router: Router, flowmap: int, connection: Connect
) -> None:
    """A map has the flows of source tables of families inet, ip and ip6 at the same time."""
    tables = flowtable.flowtables(router.namespace)
    assert {(table.table, table.name) for table in tables} >= {
        ("fw", "ft"),
        ("fw4", "ft"),
        ("fw6", "ft"),
    }
    flows = [
        connection(protocol, version, server_port=7000 + version).offloaded()
        for protocol in (TCP_PROTOCOL, UDP_PROTOCOL)
        for version in (4, 6)
    ]
    for flow in flows:
        assert [bpf.lookup(flowmap, key).dir for key in flow.keys] == [0, 1]
    assert len(list(bpf.keys(flowmap))) == 2 * len(flows)


@pytest.mark.clause("SN-3")
def test_flows_from_before_the_map_are_there(
    router: Router, connection: Connect, make_flowmap: Flowmap
) -> None:
    """Flows that were offloaded before the map was created are in it."""
    flows = [
        connection(UDP_PROTOCOL, version, server_port=7000 + number).offloaded()
        for number, version in enumerate((4, 6, 4, 6))
    ]
    late = make_flowmap(router.namespace)
    for flow in flows:
        assert [bpf.lookup(late, key).dir for key in flow.keys] == [0, 1]
    assert len(list(bpf.keys(late))) == 2 * len(flows)


@pytest.mark.clause("SN-3", "SN-1")
def test_snoop_table_counts_its_entries(own_router: Router, own_connection: Connect) -> None:
    """A snoop table's dump counts existing flows and those added later."""
    own_connection(UDP_PROTOCOL, 4, server_port=7001).offloaded()
    flowtable.create_snoop("spy", "all", own_router.namespace)
    assert flowtable.find("spy", "all", own_router.namespace).entries == 1

    own_connection(UDP_PROTOCOL, 6, server_port=7002).offloaded()
    seen = flowtable.find("spy", "all", own_router.namespace)
    assert (seen.entries, seen.missed) == (2, 0)


@pytest.mark.clause("SN-2")
def test_nothing_comes_from_another_namespace(
    own_router: Router, own_connection: Connect, namespace: Namespaces
) -> None:
    """A snoop table in another netns does not get the router's flows."""
    other_ns = namespace("fm-else")
    for ns in (other_ns, own_router.client.namespace):
        flowtable.create_snoop("spy", "all", ns)
    own_connection(TCP_PROTOCOL, 4).offloaded()
    for ns in (other_ns, own_router.client.namespace):
        assert flowtable.find("spy", "all", ns).entries == 0


@pytest.mark.clause("SN-9")
def test_several_maps_each_hold_everything(
    router: Router, connection: Connect, make_flowmap: Flowmap
) -> None:
    """Every one of several maps has the flow, whether created before or after it."""
    early = [make_flowmap(router.namespace) for _ in range(3)]
    flow = connection(TCP_PROTOCOL, 6).offloaded()
    late = make_flowmap(router.namespace)
    for fd in (*early, late):
        assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]


@pytest.mark.clause("SN-5")
def test_snoop_table_on_the_devices_changes_nothing(
    own_router: Router, own_connection: Connect
) -> None:
    """A snoop table that lists the devices changes neither conntrack status nor forwarding."""
    flowtable.create_snoop("spy", "all", own_router.namespace, devices=["r0", "r1"])
    conn = own_connection(TCP_PROTOCOL, 4)
    flow = conn.offloaded()
    for _ in range(3):
        conn.exchange()
    ct_entry = conn.entry()
    assert ct_entry is not None
    assert ct_entry.status == flow.entry.status

    flowtable.drop_table("spy", own_router.namespace)
    conn.exchange()
    assert (after := conn.entry()) is not None
    assert after.offloaded


def _entries_and_missed(fd: int) -> tuple[int, int]:
    return bpf.entries(fd), bpf.missed(fd)


@pytest.mark.clause("SN-7", "FM-11")
def test_full_map_misses_further_flows_and_disturbs_nobody(
    router: Router, connection: Connect, make_flowmap: Flowmap
) -> None:
    """A full map counts further flows as missed, leaves others alone, and reuses freed capacity."""
    small, large = make_flowmap(router.namespace, 2), make_flowmap(router.namespace)
    conns = [connection(UDP_PROTOCOL, 4, server_port=7000 + number) for number in range(4)]
    flows = [conn.offloaded() for conn in conns]

    mirrored = [flow for flow in flows if bpf.found(small, flow.original) is not None]
    assert len(mirrored) == 2
    # The small map counts the two flows that it could not mirror.
    assert _entries_and_missed(small) == (2, 2)
    assert _entries_and_missed(large) == (4, 0)
    assert all(bpf.found(large, key) is not None for flow in flows for key in flow.keys)
    for conn in conns:
        conn.exchange()

    conntrack.delete(mirrored[0].entry.original, router.namespace)
    assert bpf.found(small, mirrored[0].original) is None

    # Capacity is freed after a grace period, so retry with new flows.
    ports = count(7010)

    def new_flow_mirrored() -> bool:
        flow = connection(UDP_PROTOCOL, 6, server_port=next(ports)).offloaded()
        return bpf.found(small, flow.original) is not None

    wait_for("a new flow to be mirrored", new_flow_mirrored)


@pytest.mark.clause("FM-12")
def test_map_agrees_with_conntrack(router: Router, flowmap: int, connection: Connect) -> None:
    """The map's keys match conntrack's offloaded entries."""
    for number in range(3):
        connection(TCP_PROTOCOL, 4, server_port=7000 + number).offloaded()
        connection(UDP_PROTOCOL, 6, server_port=7000 + number).offloaded()
    offloaded = conntrack.offloaded(router.namespace)
    sources = {
        (side.protocol, side.source_port, side.destination_port)
        for entry in offloaded
        for side in (entry.original, entry.reply)
    }
    in_map = {(key.l4proto, key.ports.source, key.ports.destination) for key in bpf.keys(flowmap)}
    assert in_map == sources
