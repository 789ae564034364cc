# SPDX-License-Identifier: GPL-2.0-only
"""A snoop table at its memcg limit misses flows and counts them; nothing else is affected."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel import memcg
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import Connect
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL

FLOW_COUNT = 48


@pytest.mark.clause("SN-7", "SN-9", "MM-10")
@pytest.mark.deadline(120)
def test_flows_that_its_creators_cgroup_has_no_room_for(
    own_router: Router, own_connection: Connect, own_flowmap: int, cleanup: ExitStack
) -> None:
    """A snoop table counts the flows it misses at its creator's memcg limit; a map has them all."""
    group = memcg.make("fm-full", cleanup)

    def make() -> None:
        group.enter()
        flowtable.create_snoop("spy", "all", own_router.namespace)

    child_process.in_child(make)
    group.await_left()
    cleanup.callback(group.remove_limit)
    keys: list[uapi.Key] = []
    for number in range(FLOW_COUNT):
        group.tighten()
        flow = own_connection(UDP_PROTOCOL, 4, server_port=7000 + number).offloaded()
        keys += flow.keys
    entries, missed = flowtable.snooped("spy", "all", own_router.namespace)
    assert missed > 0
    assert entries + missed == FLOW_COUNT
    assert [bpf.lookup(own_flowmap, key).dir for key in keys] == [0, 1] * FLOW_COUNT

    group.remove_limit()
    own_connection(UDP_PROTOCOL, 4, server_port=6999).offloaded()
    assert flowtable.snooped("spy", "all", own_router.namespace) == (entries + 1, missed)
