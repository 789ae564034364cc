# SPDX-License-Identifier: GPL-2.0-only
"""Consistency of what readers return with the kernel memory that the host reads with drgn.

The host walks the hash tables with the kernel's debug information (`KernelMemory`).  So an entry
that every reader misses, or that readers make up, is detected.
"""

import os

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.drgn_client import LOOK, Entry, KernelMemory, Table
from fixtures.guest.net import conntrack, flowtable, netns
from fixtures.guest.pytest_plugin.plugin_api import Connect, Flowmap, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

ROUTER_CONFIGS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(100, 7)),
    Plan(tables="split"),
]
FLOW_COUNT = 300
"""More flows than the kernel removes in one batch with softirqs off (NF_FLOW_SNOOP_BATCH)."""
_NAT_FLAGS = uapi.F_SNAT | uapi.F_DNAT  # the same bits in enum nf_flow_flags


def _tables_of_kind(tables: list[Table], kind: str, namespace: str) -> list[Table]:
    inode = netns.inode(namespace)
    return [table for table in tables if (table.kind, table.namespace) == (kind, inode)]


def _sorted_identities(tables: list[Table]) -> list[tuple[int, int, bytes]]:
    return sorted(identity for table in tables for identity in table.identities)


def _walk_map(fd: int) -> list[tuple[int, bytes]]:
    """Return direction and key of each entry, sorted, by the bpf() system call."""
    return sorted((bpf.lookup(fd, key).dir, bytes(key)) for key in bpf.keys(fd))


def _snoop_counts(memory: KernelMemory, namespace: str) -> list[int]:
    """Return, for each direction of each flow of the source tables, how many entries mirror it."""
    sources = _tables_of_kind(memory.tables(), "source", namespace)
    return [entry.snoopers for source in sources for entry in source.entries]


def _is_consistent(table: Table) -> bool:
    """Return whether a snoop table's hash table, walk order and count have the same flows."""
    return table.count == table.ordered and 2 * table.count == len(table.entries)


@pytest.mark.clause("FM-12", "SN-2", "SN-4", "SN-9")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=describe, indirect=True)
def test_tables_map_and_memory_agree(
    router: Router,
    flowmap: int,
    connection: Connect,
    make_flowmap: Flowmap,
    kernel_memory: KernelMemory,
) -> None:
    """Source tables, snoop tables and maps have the same flows in kernel memory, as do walks."""
    flows = [
        connection(protocol, version, server_port=7000 + version).offloaded()
        for protocol in (TCP_PROTOCOL, UDP_PROTOCOL)
        for version in (4, 6)
    ]
    late = make_flowmap(router.namespace)
    flowtable.create_snoop("spy", "all", router.namespace)

    tables = kernel_memory.tables()
    sources = _tables_of_kind(tables, "source", router.namespace)
    snoops = _tables_of_kind(tables, "snoop", router.namespace)
    served = _sorted_identities(sources)
    expected = sorted((way, bytes(key)) for flow in flows for way, key in enumerate(flow.keys))
    assert sorted((direction, key) for _, direction, key in served) == expected
    assert all(table.count == len(table.entries) for table in sources)
    maps = [bpf.map_info(fd).id for fd in (flowmap, late)]
    assert [table.map for table in snoops] == [*maps, None]
    for table in snoops:
        assert table.identities == served
        assert _is_consistent(table)
        assert table.missed == 0
    for fd in (flowmap, late):
        assert _walk_map(fd) == expected


@pytest.mark.clause("FM-3", "SN-4")
@pytest.mark.parametrize(
    "router", [Plan(), Plan(nat="masquerade"), Plan(nat="snat+dnat")], ids=describe, indirect=True
)
def test_values_tell_what_the_source_table_would_do(
    router: Router, flowmap: int, connection: Connect, kernel_memory: KernelMemory
) -> None:
    """Map values have the direction, NAT flags and translated tuple of the source table's flow."""
    for version in (4, 6):
        connection(UDP_PROTOCOL, version, server_port=7000 + version).offloaded()
    (source,) = _tables_of_kind(kernel_memory.tables(), "source", router.namespace)
    assert len(source.entries) == 4
    for entry in source.entries:
        value, other = bpf.lookup(flowmap, entry.key), _reverse_key(source, entry)
        assert (value.dir, value.flags) == (entry.direction, entry.flags & _NAT_FLAGS)
        # The tuple after NAT is the reverse of the other direction's tuple.
        assert (bytes(value.src), bytes(value.dst)) == (bytes(other.dst), bytes(other.src))
        assert value.ports.source == other.ports.destination
        assert value.ports.destination == other.ports.source


def _reverse_key(table: Table, entry: Entry) -> uapi.Key:
    """Return the key of the same flow's opposite direction."""
    (found,) = (
        other.key
        for other in table.entries
        if other.flow == entry.flow and other.direction != entry.direction
    )
    return found


@pytest.mark.clause("SN-6")
@pytest.mark.parametrize(
    "teardown",
    [flow_teardown.conntrack_delete, flow_teardown.conntrack_flush, flow_teardown.table_delete],
    ids=lambda teardown: teardown.__name__,
)
def test_entry_of_an_ended_flow_leaves_memory(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    kernel_memory: KernelMemory,
    teardown: flow_teardown.End,
) -> None:
    """After a flow's teardown its entries and the flow itself are freed."""
    flowtable.create_snoop("spy", "all", own_router.namespace)
    conn = own_connection(UDP_PROTOCOL, 4)
    flow = conn.offloaded()
    before = _tables_of_kind(kernel_memory.tables(), "snoop", own_router.namespace)
    assert [len(table.entries) for table in before] == [2, 2]

    teardown(conn, own_router)
    assert [bpf.found(own_flowmap, key) for key in flow.keys] == [None, None]

    def all_freed() -> bool:
        tables = kernel_memory.tables()
        snoops = _tables_of_kind(tables, "snoop", own_router.namespace)
        assert len(snoops) == 2
        assert all(map(_is_consistent, snoops))
        return not any(table.entries for table in tables)

    # Garbage collection runs once a second (nf_flow_offload_work_gc()).
    wait_for("the flow and its snoop entries to be freed", all_freed, interval=LOOK)


@pytest.mark.clause("SN-2", "SN-3")
def test_same_tuple_in_two_namespaces_is_two_flows(
    router: Router,
    own_router: Router,
    connection: Connect,
    own_connection: Connect,
    make_flowmap: Flowmap,
    kernel_memory: KernelMemory,
) -> None:
    """Equal tuples in two netns are separate flows, each only in the maps of its netns."""
    routers = [(router.namespace, connection), (own_router.namespace, own_connection)]
    early = [make_flowmap(namespace) for namespace, _ in routers]
    flows = [connect(UDP_PROTOCOL, 4, client_port=40000).offloaded() for _, connect in routers]
    late = [make_flowmap(namespace) for namespace, _ in routers]
    assert bytes(flows[0].original) == bytes(flows[1].original)

    tables = kernel_memory.tables()
    for (namespace, _), *fds in zip(routers, early, late, strict=True):
        served = _sorted_identities(_tables_of_kind(tables, "source", namespace))
        assert len(served) == 2
        snoops = _tables_of_kind(tables, "snoop", namespace)
        assert [table.map for table in snoops] == [bpf.map_info(fd).id for fd in fds]
        for table in snoops:
            assert table.identities == served
            owners = {entry.flow_namespace for entry in table.entries}
            assert owners == {netns.inode(namespace)}
    conntrack.delete(flows[0].entry.original, router.namespace)
    for emptied, unchanged in (early, late):
        assert (_walk_map(emptied), len(_walk_map(unchanged))) == ([], 2)


@pytest.mark.clause("SN-8", "SN-9")
@pytest.mark.deadline(120)
def test_flows_outlive_a_map_that_had_more_of_them_than_go_at_one_time(
    own_router: Router,
    own_connection: Connect,
    make_flowmap: Flowmap,
    kernel_memory: KernelMemory,
    flowmap_module: str,
) -> None:
    """Freeing a map with more flows than one removal batch keeps the flows, without its entries."""
    ns = own_router.namespace
    netns.set_sysctls(ns, {"netfilter/nf_flowtable_udp_timeout": 3600})
    for number in range(FLOW_COUNT):
        own_connection(UDP_PROTOCOL, (4, 6)[number % 2], server_port=7200 + number).offloaded()
    fd = make_flowmap(ns)
    assert bpf.entries(fd) == FLOW_COUNT
    assert _snoop_counts(kernel_memory, ns) == [1] * 2 * FLOW_COUNT

    os.close(fd)
    modules.await_unreferenced(flowmap_module)
    assert _snoop_counts(kernel_memory, ns) == [0] * 2 * FLOW_COUNT
    new_map = make_flowmap(ns)
    assert bpf.entries(new_map) == FLOW_COUNT
    conntrack.flush(ns)
    wait_for("the flows to be removed", lambda: bpf.entries(new_map) == 0)
