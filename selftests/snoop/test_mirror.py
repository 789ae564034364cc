# SPDX-License-Identifier: GPL-2.0-only
"""Contents of a snoop table: every flow of every source table of its netns, and no other."""

from itertools import count

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import (
    MakeFlowmap,
    MakeNetns,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, flow_from_conntrack


@pytest.mark.clause("SN-2.1", "SN-2.2", "SN-4.1")
@pytest.mark.parametrize(
    "router", [RouterConfig(tables="split")], ids=router_config_id, indirect=True
)
def test_flows_of_several_source_tables_are_mirrored(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """A map has the flows of source tables of families inet, ip and ip6 at the same time."""
    tables = flowtable.list_flowtables(router.namespace)
    assert {(table.table, table.name) for table in tables} >= {
        ("fw", "ft"),
        ("fw4", "ft"),
        ("fw6", "ft"),
    }
    flows = [
        open_connection(protocol, version, server_port=7000 + version).wait_offloaded()
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
        for version in (4, 6)
    ]
    for flow in flows:
        assert [bpf.lookup(flowmap, key).dir for key in flow.keys] == [0, 1]
    assert len(list(bpf.iterate_keys(flowmap))) == 2 * len(flows)


@pytest.mark.clause("SN-3.1", "SN-3.4")
def test_flows_offloaded_before_map_create_are_mirrored(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Flows that were offloaded before the map was created are in it."""
    flows = [
        open_connection(IPPROTO_UDP, version, server_port=7000 + number).wait_offloaded()
        for number, version in enumerate((4, 6, 4, 6))
    ]
    late = make_flowmap(router.namespace)
    for flow in flows:
        assert [bpf.lookup(late, key).dir for key in flow.keys] == [0, 1]
    assert len(list(bpf.iterate_keys(late))) == 2 * len(flows)


@pytest.mark.clause("SN-1.5", "SN-3.1", "SN-3.5")
def test_snoop_table_dump_counts_entries(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """A snoop table's dump counts existing flows and those added later."""
    open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    flowtable.create_snoop_table("spy", "all", private_router.namespace)
    # A work item publishes the table after the commit.
    wait_for(
        "the snoop table to have the existing flow",
        lambda: flowtable.snoop_counters("spy", "all", private_router.namespace) == (1, 0),
    )

    open_private_connection(IPPROTO_UDP, 6, server_port=7002).wait_offloaded()
    seen = flowtable.get_flowtable("spy", "all", private_router.namespace)
    assert (seen.entries, seen.missed) == (2, 0)


@pytest.mark.clause("SN-2.4")
def test_snoop_table_in_other_netns_stays_empty(
    private_router: Router, open_private_connection: OpenConnection, make_netns: MakeNetns
) -> None:
    """A snoop table in another netns does not get the router's flows."""
    other_ns = make_netns("fm-else")
    open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    for ns in (other_ns, private_router.client.namespace, private_router.namespace):
        flowtable.create_snoop_table("spy", "all", ns)
    # The table that was created last has been published, and so have the others.
    wait_for(
        "the router's snoop table to have its flow",
        lambda: flowtable.snoop_counters("spy", "all", private_router.namespace) == (1, 0),
    )
    open_private_connection(IPPROTO_TCP, 4).wait_offloaded()
    assert flowtable.snoop_counters("spy", "all", private_router.namespace) == (2, 0)
    for ns in (other_ns, private_router.client.namespace):
        assert flowtable.get_flowtable("spy", "all", ns).entries == 0


@pytest.mark.clause("SN-9.2")
def test_several_maps_mirror_every_flow(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Every one of several maps has the flow, whether created before or after it."""
    early = [make_flowmap(router.namespace) for _ in range(3)]
    flow = open_connection(IPPROTO_TCP, 6).wait_offloaded()
    late = make_flowmap(router.namespace)
    for fd in (*early, late):
        assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]


@pytest.mark.clause("SN-5.1", "SN-5.2")
def test_snoop_table_with_devices_leaves_forwarding_unchanged(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """A snoop table that lists the devices changes neither conntrack status nor forwarding."""
    flowtable.create_snoop_table("spy", "all", private_router.namespace, devices=["r0", "r1"])
    conn = open_private_connection(IPPROTO_TCP, 4)
    flow = conn.wait_offloaded()
    for _ in range(3):
        conn.exchange()
    ct_entry = conn.conntrack_entry()
    assert ct_entry is not None
    assert ct_entry.status == flow.entry.status

    flowtable.drop_table("spy", private_router.namespace)
    conn.exchange()
    assert (after := conn.conntrack_entry()) is not None
    assert after.offloaded


def _entries_and_missed(fd: int) -> tuple[int, int]:
    return bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)


@pytest.mark.clause("SN-7.2", "SN-7.4", "FM-11.1", "FM-11.2", "FM-11.3")
def test_full_map_counts_missed_flows_and_reuses_capacity(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """A full map counts further flows as missed, leaves others alone, and reuses freed capacity."""
    small = make_flowmap(router.namespace, uapi.keys_for_flows(2))
    large = make_flowmap(router.namespace)
    conns = [open_connection(IPPROTO_UDP, 4, server_port=7000 + number) for number in range(4)]
    flows = [conn.wait_offloaded() for conn in conns]

    mirrored = [flow for flow in flows if bpf.lookup_or_none(small, flow.original) is not None]
    assert len(mirrored) == 2
    # The small map counts the two flows that it could not mirror.
    assert _entries_and_missed(small) == (2, 2)
    assert _entries_and_missed(large) == (4, 0)
    assert all(bpf.lookup_or_none(large, key) is not None for flow in flows for key in flow.keys)
    for conn in conns:
        conn.exchange()

    conntrack.delete(mirrored[0].entry.original, router.namespace)
    assert bpf.lookup_or_none(small, mirrored[0].original) is None

    # Capacity is freed after a grace period, so retry with new flows.
    ports = count(7010)

    def new_flow_mirrored() -> bool:
        flow = open_connection(IPPROTO_UDP, 6, server_port=next(ports)).wait_offloaded()
        return bpf.lookup_or_none(small, flow.original) is not None

    wait_for("a new flow to be mirrored", new_flow_mirrored)


@pytest.mark.clause("FM-12.1")
@pytest.mark.parametrize(
    "router",
    [RouterConfig(), RouterConfig(nat="snat+dnat")],
    ids=router_config_id,
    indirect=True,
)
def test_map_matches_offloaded_conntrack_entries(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """The map's keys match conntrack's offloaded entries, one for one."""
    for number in range(3):
        open_connection(IPPROTO_TCP, 4, server_port=7000 + number).wait_offloaded()
        open_connection(IPPROTO_UDP, 6, server_port=7000 + number).wait_offloaded()
    offloaded = conntrack.offloaded_entries(router.namespace)
    assert len(offloaded) == 6
    expected = [key for entry in offloaded for key in flow_from_conntrack(router, entry).keys]
    # Addresses, ports, protocols and devices, and each key as often as conntrack has it.
    assert sorted(map(bytes, bpf.iterate_keys(flowmap))) == sorted(map(bytes, expected))
    ids = {bytes(key): bpf.lookup(flowmap, key).ct_id for key in expected}
    assert sorted(ids.values()) == sorted(entry.ct_id for entry in offloaded for _ in range(2))
