# SPDX-License-Identifier: GPL-2.0-only
"""Views at the memcg limit of the creator who pays miss flows and count them; others do not."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import memcg
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

FLOW_COUNT = 48


def _create_limited_snoop_table(namespace: str, cleanup: ExitStack) -> memcg.Cgroup:
    """Create a snoop table whose creator's memcg can be limited; return the memcg."""
    group = memcg.create("fm-full", cleanup)

    def make() -> None:
        group.enter()
        flowtable.create_snoop_table("spy", "all", namespace)

    child_process.run_in_child(make)
    group.wait_until_empty()
    cleanup.callback(group.remove_limit)
    return group


@pytest.mark.clause("SN-1.6", "SN-7.1", "SN-7.4", "MM-10.5")
@pytest.mark.deadline(120)
def test_views_at_memcg_limit_of_first_view_count_missed_flows(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
) -> None:
    """At the limit of the first view's creator each view counts the flows that it misses.

    The source table offloads every flow, and a view has each flow in both directions or not.
    """
    ns = private_router.namespace
    group = _create_limited_snoop_table(ns, cleanup)
    fd = make_flowmap(ns)
    flows = []
    for number in range(FLOW_COUNT):
        group.limit_to_current_usage()
        flows.append(
            open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()
        )
    entries, missed = flowtable.snoop_counters("spy", "all", ns)
    assert missed > 0
    assert entries + missed == FLOW_COUNT
    found = [[bpf.lookup_or_none(fd, key) is not None for key in flow.keys] for flow in flows]
    assert all(original == reply for original, reply in found), "only one direction is found"
    in_map = sum(original for original, _ in found)
    assert in_map >= entries
    counts = bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)
    assert counts == (in_map, FLOW_COUNT - in_map)

    group.remove_limit()
    open_private_connection(IPPROTO_UDP, 4, server_port=6999).wait_offloaded()
    assert flowtable.snoop_counters("spy", "all", ns) == (entries + 1, missed)
    assert bpf.flowmap_entry_count(fd) == in_map + 1


@pytest.mark.clause("MM-10.4")
@pytest.mark.deadline(120)
def test_memcg_limit_of_later_view_does_not_matter(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
) -> None:
    """The limit of a later view's creator makes no view miss a flow: the first one's pays."""
    ns = private_router.namespace
    group = _create_limited_snoop_table(ns, cleanup)
    keys: list[uapi.Key] = []
    for number in range(FLOW_COUNT):
        group.limit_to_current_usage()
        flow = open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()
        keys += flow.keys
    assert [bpf.lookup(private_flowmap, key).dir for key in keys] == [0, 1] * FLOW_COUNT
    wait_for(
        "the snoop table to have every flow",
        lambda: flowtable.snoop_counters("spy", "all", ns) == (FLOW_COUNT, 0),
    )
