# SPDX-License-Identifier: GPL-2.0-only
"""Counts stay exact while views come and go among flows that some of them lack."""

import os

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow


def _counts(fd: int) -> tuple[int, int]:
    """Return entries and missed flows of a map, whose walk has the keys of its entries."""
    entries = bpf.flowmap_entry_count(fd)
    assert len(list(bpf.iterate_keys(fd))) == uapi.keys_for_flows(entries)
    return entries, bpf.flowmap_missed_count(fd)


def _offload(open_connection: OpenConnection, number: int) -> Flow:
    return open_connection(
        IPPROTO_TCP if number % 3 == 0 else IPPROTO_UDP,
        6 if number % 2 else 4,
        server_port=7800 + number,
    ).wait_offloaded()


def _end(router: Router, flow: Flow, large: int) -> None:
    """Delete a flow's conntrack entry; a map that has every flow shows when it is gone."""
    left = bpf.flowmap_entry_count(large) - 1
    conntrack.delete(flow.entry.original, router.namespace)
    wait_for("the flow to leave", lambda: bpf.flowmap_entry_count(large) == left)


@pytest.mark.clause("FM-11.1", "FM-11.3", "SN-1.5", "SN-1.6", "SN-9.1", "SN-9.2", "SN-9.3")
def test_counts_are_exact_while_views_come_and_go(
    private_router: Router, open_private_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Views with and without room join one by one, flows end, views leave in another order."""
    namespace = private_router.namespace
    large = make_flowmap(namespace)
    flows = [_offload(open_private_connection, number) for number in range(2)]
    small = make_flowmap(namespace, uapi.keys_for_flows(3))
    assert (_counts(large), _counts(small)) == ((2, 0), (2, 0))
    flows += [_offload(open_private_connection, number) for number in (2, 3)]
    assert (_counts(large), _counts(small)) == ((4, 0), (3, 1))

    # Both join flows that another view lacks.
    tiny = make_flowmap(namespace, uapi.keys_for_flows(1))
    flowtable.create_snoop_table("all", "snoop", namespace)

    def snooped() -> tuple[int, int]:
        return flowtable.snoop_counters("all", "snoop", namespace)

    wait_for("publication", lambda: snooped() == (4, 0))
    assert [_counts(fd) for fd in (large, small, tiny)] == [(4, 0), (3, 1), (1, 3)]
    flows.append(_offload(open_private_connection, 4))
    assert [_counts(fd) for fd in (large, small, tiny)] == [(5, 0), (3, 2), (1, 4)]
    assert snooped() == (5, 0)

    # A flow that the small map lacks ends, then one that it has.
    _end(private_router, flows[3], large)
    assert (_counts(large), _counts(small), snooped()) == ((4, 0), (3, 2), (4, 0))
    _end(private_router, flows[1], large)
    assert (_counts(large), _counts(small), snooped()) == ((3, 0), (2, 2), (3, 0))
    assert _counts(tiny)[0] == sum(
        bpf.lookup_or_none(tiny, flow.original) is not None for flow in flows
    )
    flows.append(_offload(open_private_connection, 5))
    assert (_counts(large), _counts(small), snooped()) == ((4, 0), (3, 2), (4, 0))
    assert bpf.lookup_or_none(small, flows[5].original) is not None

    # The smallest views leave; what the others lack does not change.
    os.close(tiny)
    os.close(small)
    flows += [_offload(open_private_connection, number) for number in (6, 7, 8)]
    assert (_counts(large), snooped()) == ((7, 0), (7, 0))
    last = make_flowmap(namespace, uapi.keys_for_flows(6))
    assert (_counts(large), _counts(last), snooped()) == ((7, 0), (6, 1), (7, 0))


@pytest.mark.clause("SN-3.1", "SN-6.4", "SN-8.1", "SN-9.3")
@pytest.mark.parametrize("capacity", [2, 100])
def test_view_after_the_last_one_has_all_flows(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    capacity: int,
) -> None:
    """Flows outlive the last view, some of them lacked by it, and are in the next one."""
    namespace = private_router.namespace
    flows: list[Flow] = []
    for round_number in range(3):
        fd = make_flowmap(namespace, uapi.keys_for_flows(capacity))
        flows.append(_offload(open_private_connection, round_number))
        held = min(len(flows), capacity)
        assert bpf.flowmap_entry_count(fd) == held
        found = [bpf.lookup_or_none(fd, flow.original) is not None for flow in flows]
        assert sum(found) == held
        os.close(fd)
    # One ends while no view is left.
    conntrack.delete(flows[0].entry.original, namespace)
    large = make_flowmap(namespace)
    wait_for("the flow to leave", lambda: bpf.flowmap_entry_count(large) == 2)
    assert _counts(large) == (2, 0)
    for flow in flows[1:]:
        assert [bpf.lookup(large, key).dir for key in flow.keys] == [0, 1]
    _end(private_router, flows[2], large)
    assert _counts(large) == (1, 0)
