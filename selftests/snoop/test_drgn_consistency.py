# SPDX-License-Identifier: GPL-2.0-only
"""Consistency of what readers return with the kernel memory that the host reads with drgn.

The host walks the hash tables with the kernel's debug information (`DrgnClient`).  So an entry
that every reader misses, or that readers make up, is detected.
"""

import os

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.drgn_client import POLL_INTERVAL, DrgnClient, FlowTable, FlowTuple
from fixtures.guest.net import conntrack, flowtable, netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

ROUTER_CONFIGS = [
    RouterConfig(),
    RouterConfig(nat="masquerade"),
    RouterConfig(nat="snat+dnat"),
    RouterConfig(vlans=(100, 7)),
    RouterConfig(tables="split"),
]
FLOW_COUNT = 300
"""More flows than the kernel goes through between two reschedules (256)."""
_NAT_FLAGS = uapi.F_SNAT | uapi.F_DNAT  # the same bits in enum nf_flow_flags


def _tables_of_kind(tables: list[FlowTable], kind: str, namespace: str) -> list[FlowTable]:
    inode = netns.inode(namespace)
    return [table for table in tables if (table.kind, table.netns_inode) == (kind, inode)]


def _sorted_identities(tables: list[FlowTable]) -> list[tuple[int, int, bytes]]:
    return sorted(identity for table in tables for identity in table.identities)


def _walk_map(fd: int) -> list[tuple[int, bytes]]:
    """Return direction and key of each entry, sorted, by the bpf() system call."""
    return sorted((bpf.lookup(fd, key).dir, bytes(key)) for key in bpf.iterate_keys(fd))


def _snoop_counts(memory: DrgnClient, namespace: str) -> list[int]:
    """Return, for each direction of each flow of the source tables, how many views have it."""
    sources = _tables_of_kind(memory.tables(), "source", namespace)
    return [entry.snooper_count for source in sources for entry in source.entries]


def _is_consistent(table: FlowTable) -> bool:
    """Return whether a view's count matches the flows that have its bit in the index."""
    return 2 * table.count == len(table.entries)


@pytest.mark.clause("FM-12.1", "SN-2.1", "SN-2.2", "SN-4.1", "SN-4.2", "SN-9.1", "SN-9.2")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=router_config_id, indirect=True)
def test_map_and_tables_match_kernel_memory(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    guest_memory: DrgnClient,
) -> None:
    """Source tables, snoop tables and maps have the same flows in kernel memory, as do walks."""
    flows = [
        open_connection(protocol, version, server_port=7000 + version).wait_offloaded()
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
        for version in (4, 6)
    ]
    late = make_flowmap(router.namespace)
    flowtable.create_snoop_table("spy", "all", router.namespace)
    # A work item publishes the table.
    wait_for(
        "the snoop table to have the flows",
        lambda: flowtable.snoop_counters("spy", "all", router.namespace) == (len(flows), 0),
    )

    tables = guest_memory.tables()
    sources = _tables_of_kind(tables, "source", router.namespace)
    snoops = _tables_of_kind(tables, "snoop", router.namespace)
    served = _sorted_identities(sources)
    expected = sorted((way, bytes(key)) for flow in flows for way, key in enumerate(flow.keys))
    assert sorted((direction, key) for _, direction, key in served) == expected
    assert all(table.count == len(table.entries) for table in sources)
    maps = [bpf.map_info(fd).id for fd in (flowmap, late)]
    assert [table.map_id for table in snoops] == [*maps, None]
    for table in snoops:
        assert table.identities == served
        assert _is_consistent(table)
        assert table.missed == 0
    for fd in (flowmap, late):
        assert _walk_map(fd) == expected


@pytest.mark.clause("FM-3.8", "FM-3.9", "FM-3.11", "SN-4.2")
@pytest.mark.parametrize(
    "router",
    [RouterConfig(), RouterConfig(nat="masquerade"), RouterConfig(nat="snat+dnat")],
    ids=router_config_id,
    indirect=True,
)
def test_map_values_match_source_table_tuples(
    router: Router, flowmap: int, open_connection: OpenConnection, guest_memory: DrgnClient
) -> None:
    """Map values have the direction, NAT flags and translated tuple of the source table's flow."""
    for version in (4, 6):
        open_connection(IPPROTO_UDP, version, server_port=7000 + version).wait_offloaded()
    (source,) = _tables_of_kind(guest_memory.tables(), "source", router.namespace)
    assert len(source.entries) == 4
    for entry in source.entries:
        value, other = bpf.lookup(flowmap, entry.key), _reverse_key(source, entry)
        assert (value.dir, value.flags) == (entry.direction, entry.flags & _NAT_FLAGS)
        # The tuple after NAT is the reverse of the other direction's tuple.
        assert (bytes(value.src), bytes(value.dst)) == (bytes(other.dst), bytes(other.src))
        assert value.ports.source == other.ports.destination
        assert value.ports.destination == other.ports.source


def _reverse_key(table: FlowTable, entry: FlowTuple) -> uapi.Key:
    """Return the key of the same flow's opposite direction."""
    (found,) = (
        other.key
        for other in table.entries
        if other.flow_address == entry.flow_address and other.direction != entry.direction
    )
    return found


@pytest.mark.clause("SN-6.9")
@pytest.mark.parametrize(
    "teardown",
    [flow_teardown.conntrack_delete, flow_teardown.conntrack_flush, flow_teardown.table_delete],
    ids=lambda teardown: teardown.__name__,
)
def test_snoop_entry_after_flow_end_is_freed(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    guest_memory: DrgnClient,
    teardown: flow_teardown.TeardownAction,
) -> None:
    """After a flow's teardown its entries and the flow itself are freed."""
    flowtable.create_snoop_table("spy", "all", private_router.namespace)
    conn = open_private_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    wait_for(
        "the snoop table to have the flow",
        lambda: flowtable.snoop_counters("spy", "all", private_router.namespace) == (1, 0),
    )
    before = _tables_of_kind(guest_memory.tables(), "snoop", private_router.namespace)
    assert [len(table.entries) for table in before] == [2, 2]

    teardown(conn, private_router)
    assert [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys] == [None, None]

    def all_freed() -> bool:
        tables = guest_memory.tables()
        snoops = _tables_of_kind(tables, "snoop", private_router.namespace)
        assert len(snoops) == 2
        assert all(map(_is_consistent, snoops))
        return not any(table.entries for table in tables)

    # Garbage collection runs once a second (nf_flow_offload_work_gc()).
    wait_for("the flow and its snoop entries to be freed", all_freed, interval=POLL_INTERVAL)


@pytest.mark.clause("SN-2.4")
def test_same_tuple_in_two_netns_is_two_flows(
    router: Router,
    private_router: Router,
    open_connection: OpenConnection,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    guest_memory: DrgnClient,
) -> None:
    """Equal tuples in two netns are separate flows, each only in the maps of its netns."""
    routers = [
        (router.namespace, open_connection),
        (private_router.namespace, open_private_connection),
    ]
    early = [make_flowmap(namespace) for namespace, _ in routers]
    flows = [connect(IPPROTO_UDP, 4, client_port=20000).wait_offloaded() for _, connect in routers]
    late = [make_flowmap(namespace) for namespace, _ in routers]
    assert bytes(flows[0].original) == bytes(flows[1].original)

    tables = guest_memory.tables()
    for (namespace, _), *fds in zip(routers, early, late, strict=True):
        served = _sorted_identities(_tables_of_kind(tables, "source", namespace))
        assert len(served) == 2
        snoops = _tables_of_kind(tables, "snoop", namespace)
        assert [table.map_id for table in snoops] == [bpf.map_info(fd).id for fd in fds]
        for table in snoops:
            assert table.identities == served
            owners = {entry.netns_inode for entry in table.entries}
            assert owners == {netns.inode(namespace)}
    conntrack.delete(flows[0].entry.original, router.namespace)
    for emptied, unchanged in (early, late):
        assert (_walk_map(emptied), len(_walk_map(unchanged))) == ([], 2)


@pytest.mark.clause("SN-13.7")
@pytest.mark.deadline(120)
def test_map_free_with_reschedules_keeps_flows(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    guest_memory: DrgnClient,
    flowmap_loaded: str,
) -> None:
    """Freeing a map with many flows keeps the flows, and removes the map's bit from each."""
    ns = private_router.namespace
    netns.set_sysctls(ns, {"netfilter/nf_flowtable_udp_timeout": 3600})
    for number in range(FLOW_COUNT):
        open_private_connection(
            IPPROTO_UDP, (4, 6)[number % 2], server_port=7200 + number
        ).wait_offloaded()
    fd = make_flowmap(ns)
    assert bpf.flowmap_entry_count(fd) == FLOW_COUNT
    assert _snoop_counts(guest_memory, ns) == [1] * 2 * FLOW_COUNT

    os.close(fd)
    modules.wait_until_unreferenced(flowmap_loaded)
    # A work item removes the bits.
    wait_for(
        "no view to have the flows",
        lambda: _snoop_counts(guest_memory, ns) == [0] * 2 * FLOW_COUNT,
        interval=POLL_INTERVAL,
    )
    new_map = make_flowmap(ns)
    assert bpf.flowmap_entry_count(new_map) == FLOW_COUNT
    conntrack.flush(ns)
    wait_for("the flows to be removed", lambda: bpf.flowmap_entry_count(new_map) == 0)
