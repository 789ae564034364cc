# SPDX-License-Identifier: GPL-2.0-only
"""What readers say, held against the kernel's memory as the host sees it.

The host walks the hash tables by the kernel's debug information (`KernelMemory`), so that an
entry which every reader of ours overlooks, or makes up, is noticed.
"""

import os

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.drgn_client import LOOK, Entry, KernelMemory, Table
from fixtures.guest.net import conntrack, flowtable, netns
from fixtures.guest.pytest_plugin.fixtures import Connect, Flowmap, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

PLANS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(100, 7)),
    Plan(tables="split"),
]
MANY = 300
"""More than the kernel removes with bottom halves off: NF_FLOW_SNOOP_BATCH."""
_TRANSLATED = uapi.F_SNAT | uapi.F_DNAT  # the same bits in enum nf_flow_flags


def _of(tables: list[Table], kind: str, namespace: str) -> list[Table]:
    inode = netns.inode(namespace)
    return [table for table in tables if (table.kind, table.namespace) == (kind, inode)]


def _identities(tables: list[Table]) -> list[tuple[int, int, bytes]]:
    return sorted(identity for table in tables for identity in table.identities)


def _walked(fd: int) -> list[tuple[int, bytes]]:
    """Direction and key of each entry, by the system call."""
    return sorted((bpf.lookup(fd, key).dir, bytes(key)) for key in bpf.keys(fd))


def _snoopers(memory: KernelMemory, namespace: str) -> list[int]:
    """For each direction of each flow of the source tables: how many copies the flow has."""
    sources = _of(memory.tables(), "source", namespace)
    return [entry.snoopers for source in sources for entry in source.entries]


def _is_whole(table: Table) -> bool:
    """Whether a snoop table's hash table, its order and its count tell of the same flows."""
    return table.count == table.ordered and 2 * table.count == len(table.entries)


@pytest.mark.clause("FM-12", "SN-2", "SN-4", "SN-9")
@pytest.mark.parametrize("router", PLANS, ids=describe, indirect=True)
def test_tables_map_and_memory_agree(
    router: Router,
    flowmap: int,
    connection: Connect,
    make_flowmap: Flowmap,
    kernel_memory: KernelMemory,
) -> None:
    flows = [
        connection(protocol, version, server_port=7000 + version).offloaded()
        for protocol in (TCP_PROTOCOL, UDP_PROTOCOL)
        for version in (4, 6)
    ]
    late = make_flowmap(router.namespace)
    flowtable.create_snoop("spy", "all", router.namespace)

    tables = kernel_memory.tables()
    sources = _of(tables, "source", router.namespace)
    snoops = _of(tables, "snoop", router.namespace)
    served = _identities(sources)
    expected = sorted((place, bytes(key)) for flow in flows for place, key in enumerate(flow.keys))
    assert sorted((direction, key) for _, direction, key in served) == expected
    assert all(table.count == len(table.entries) for table in sources)
    maps = [bpf.map_info(fd).id for fd in (flowmap, late)]
    assert [table.map for table in snoops] == [*maps, None]
    for table in snoops:
        assert table.identities == served
        assert _is_whole(table)
        assert table.missed == 0
    for fd in (flowmap, late):
        assert _walked(fd) == expected


@pytest.mark.clause("FM-3", "SN-4")
@pytest.mark.parametrize(
    "router", [Plan(), Plan(nat="masquerade"), Plan(nat="snat+dnat")], ids=describe, indirect=True
)
def test_values_tell_what_the_source_table_would_do(
    router: Router, flowmap: int, connection: Connect, kernel_memory: KernelMemory
) -> None:
    for version in (4, 6):
        connection(UDP_PROTOCOL, version, server_port=7000 + version).offloaded()
    (source,) = _of(kernel_memory.tables(), "source", router.namespace)
    assert len(source.entries) == 4
    for entry in source.entries:
        value, other = bpf.lookup(flowmap, entry.key), _other(source, entry)
        assert (value.dir, value.flags) == (entry.direction, entry.flags & _TRANSLATED)
        # What leaves is what the other direction's packets answer to.
        assert (bytes(value.src), bytes(value.dst)) == (bytes(other.dst), bytes(other.src))
        assert value.ports.source == other.ports.destination
        assert value.ports.destination == other.ports.source


def _other(table: Table, entry: Entry) -> uapi.Key:
    """The key of the opposite direction of the same flow."""
    (found,) = (
        other.key
        for other in table.entries
        if other.flow == entry.flow and other.direction != entry.direction
    )
    return found


@pytest.mark.clause("SN-6")
@pytest.mark.parametrize(
    "end",
    [flow_teardown.conntrack_delete, flow_teardown.conntrack_flush, flow_teardown.table_delete],
    ids=lambda end: end.__name__,
)
def test_entry_of_an_ended_flow_leaves_memory(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    kernel_memory: KernelMemory,
    end: flow_teardown.End,
) -> None:
    flowtable.create_snoop("spy", "all", own_router.namespace)
    talk = own_connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()
    before = _of(kernel_memory.tables(), "snoop", own_router.namespace)
    assert [len(table.entries) for table in before] == [2, 2]

    end(talk, own_router)
    assert [bpf.found(own_flowmap, key) for key in flow.keys] == [None, None]

    def gone() -> bool:
        tables = kernel_memory.tables()
        snoops = _of(tables, "snoop", own_router.namespace)
        assert len(snoops) == 2
        assert all(map(_is_whole, snoops))
        return not any(table.entries for table in tables)

    # A flow table looks for what has ended once a second (nf_flow_offload_work_gc()).
    wait_for("the flow and its copies to leave the kernel's memory", gone, interval=LOOK)


@pytest.mark.clause("SN-2", "SN-3")
def test_same_tuple_in_two_namespaces_is_two_flows(
    router: Router,
    own_router: Router,
    connection: Connect,
    own_connection: Connect,
    make_flowmap: Flowmap,
    kernel_memory: KernelMemory,
) -> None:
    places = [(router.namespace, connection), (own_router.namespace, own_connection)]
    early = [make_flowmap(namespace) for namespace, _ in places]
    flows = [opened(UDP_PROTOCOL, 4, client_port=40000).offloaded() for _, opened in places]
    late = [make_flowmap(namespace) for namespace, _ in places]
    assert bytes(flows[0].original) == bytes(flows[1].original)

    tables = kernel_memory.tables()
    for (namespace, _), *fds in zip(places, early, late, strict=True):
        served = _identities(_of(tables, "source", namespace))
        assert len(served) == 2
        snoops = _of(tables, "snoop", namespace)
        assert [table.map for table in snoops] == [bpf.map_info(fd).id for fd in fds]
        for table in snoops:
            assert table.identities == served
            owners = {entry.flow_namespace for entry in table.entries}
            assert owners == {netns.inode(namespace)}
    conntrack.delete(flows[0].entry.original, router.namespace)
    for gone, stays in (early, late):
        assert (_walked(gone), len(_walked(stays))) == ([], 2)


@pytest.mark.clause("SN-8", "SN-9")
@pytest.mark.deadline(120)
def test_flows_outlive_a_map_that_had_more_of_them_than_go_at_one_time(
    own_router: Router,
    own_connection: Connect,
    make_flowmap: Flowmap,
    kernel_memory: KernelMemory,
    flowmap_module: str,
) -> None:
    inside = own_router.namespace
    netns.set_sysctls(inside, {"netfilter/nf_flowtable_udp_timeout": 3600})
    for number in range(MANY):
        own_connection(UDP_PROTOCOL, (4, 6)[number % 2], server_port=7200 + number).offloaded()
    fd = make_flowmap(inside)
    assert bpf.entries(fd) == MANY
    assert _snoopers(kernel_memory, inside) == [1] * 2 * MANY

    os.close(fd)
    modules.await_unreferenced(flowmap_module)
    assert _snoopers(kernel_memory, inside) == [0] * 2 * MANY
    again = make_flowmap(inside)
    assert bpf.entries(again) == MANY
    conntrack.flush(inside)
    wait_for("the flows to go", lambda: bpf.entries(again) == 0)
