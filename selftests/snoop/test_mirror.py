# SPDX-License-Identifier: GPL-2.0-only
"""What is in a snoop table: every flow of its namespace, from whichever table, and no other."""

from itertools import count

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.fixtures import Connect, Flowmap, Namespaces, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL


@pytest.mark.clause("SN-2", "SN-4")
@pytest.mark.parametrize("router", [Plan(tables="split")], ids=describe, indirect=True)
def test_flows_of_several_source_tables_are_all_there(
    router: Router, flowmap: int, connection: Connect
) -> None:
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
    elsewhere = namespace("fm-else")
    for inside in (elsewhere, own_router.client.namespace):
        flowtable.create_snoop("spy", "all", inside)
    own_connection(TCP_PROTOCOL, 4).offloaded()
    for inside in (elsewhere, own_router.client.namespace):
        assert flowtable.find("spy", "all", inside).entries == 0


@pytest.mark.clause("SN-9")
def test_several_maps_each_hold_everything(
    router: Router, connection: Connect, make_flowmap: Flowmap
) -> None:
    early = [make_flowmap(router.namespace) for _ in range(3)]
    flow = connection(TCP_PROTOCOL, 6).offloaded()
    late = make_flowmap(router.namespace)
    for fd in (*early, late):
        assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]


@pytest.mark.clause("SN-5")
def test_snoop_table_on_the_devices_changes_nothing(
    own_router: Router, own_connection: Connect
) -> None:
    flowtable.create_snoop("spy", "all", own_router.namespace, devices=["r0", "r1"])
    talk = own_connection(TCP_PROTOCOL, 4)
    flow = talk.offloaded()
    for _ in range(3):
        talk.exchange()
    entry = talk.entry()
    assert entry is not None
    assert entry.status == flow.entry.status

    flowtable.drop_table("spy", own_router.namespace)
    talk.exchange()
    assert (after := talk.entry()) is not None
    assert after.offloaded


def _counted(fd: int) -> tuple[int, int]:
    return bpf.entries(fd), bpf.missed(fd)


@pytest.mark.clause("SN-7", "FM-11")
def test_full_map_misses_further_flows_and_disturbs_nobody(
    router: Router, connection: Connect, make_flowmap: Flowmap
) -> None:
    small, large = make_flowmap(router.namespace, 2), make_flowmap(router.namespace)
    talks = [connection(UDP_PROTOCOL, 4, server_port=7000 + number) for number in range(4)]
    flows = [talk.offloaded() for talk in talks]

    held = [flow for flow in flows if bpf.found(small, flow.original) is not None]
    assert len(held) == 2
    # Those that it could not take in are counted where a user can read it.
    assert _counted(small) == (2, 2)
    assert _counted(large) == (4, 0)
    assert all(bpf.found(large, key) is not None for flow in flows for key in flow.keys)
    for talk in talks:
        talk.exchange()

    conntrack.delete(held[0].entry.original, router.namespace)
    assert bpf.found(small, held[0].original) is None

    # Room is given back after a grace period, so a later flow gets it.
    ports = count(7010)

    def one_more_fits() -> bool:
        flow = connection(UDP_PROTOCOL, 6, server_port=next(ports)).offloaded()
        return bpf.found(small, flow.original) is not None

    wait_for("the room to be used again", one_more_fits)


@pytest.mark.clause("FM-12")
def test_map_agrees_with_conntrack(router: Router, flowmap: int, connection: Connect) -> None:
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
