# SPDX-License-Identifier: GPL-2.0-only
"""A snoop table at its memcg limit misses flows and counts them; nothing else is affected."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel import memcg
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

FLOW_COUNT = 48


@pytest.mark.clause("SN-7", "SN-9", "MM-10")
@pytest.mark.deadline(120)
def test_snoop_table_at_memcg_limit_counts_missed_flows(
    private_router: Router,
    open_private_connection: OpenConnection,
    private_flowmap: int,
    cleanup: ExitStack,
) -> None:
    """A snoop table counts the flows it misses at its creator's memcg limit; a map has them all."""
    group = memcg.create("fm-full", cleanup)

    def make() -> None:
        group.enter()
        flowtable.create_snoop_table("spy", "all", private_router.namespace)

    child_process.run_in_child(make)
    group.wait_until_empty()
    cleanup.callback(group.remove_limit)
    keys: list[uapi.Key] = []
    for number in range(FLOW_COUNT):
        group.limit_to_current_usage()
        flow = open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()
        keys += flow.keys
    entries, missed = flowtable.snoop_counters("spy", "all", private_router.namespace)
    assert missed > 0
    assert entries + missed == FLOW_COUNT
    assert [bpf.lookup(private_flowmap, key).dir for key in keys] == [0, 1] * FLOW_COUNT

    group.remove_limit()
    open_private_connection(IPPROTO_UDP, 4, server_port=6999).wait_offloaded()
    assert flowtable.snoop_counters("spy", "all", private_router.namespace) == (entries + 1, missed)
