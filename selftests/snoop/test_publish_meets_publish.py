# SPDX-License-Identifier: GPL-2.0-only
"""Views that are published or created while others of the same namespace are."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU, stop_at
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

_BUCKETS_ALLOCATOR = "__kvmalloc_node_noprof"
"""Allocates the hash buckets of an index; nothing else in the creation of a map calls it."""

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu", "flowtable_modules", "flowmap_loaded")


@pytest.mark.clause("SN-3.1", "SN-9.2", "SN-9.3")
def test_views_committed_while_another_is_published_have_all_flows(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """Views that come, and one that goes, while publication is held: those left have all flows."""
    ns = private_router.namespace
    open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    with stop_at("synchronize_rcu", comm="kworker", timeout=15) as held:
        flowtable.create_snoop_table("first", "all", ns)
        held.wait_until_held()
        for name in ("second", "third", "fourth"):
            flowtable.create_snoop_table(name, "all", ns)
        open_private_connection(IPPROTO_TCP, 6, server_port=7002).wait_offloaded()
        held.release()
    for name in ("first", "second", "third", "fourth"):
        wait_for(
            f"table {name} to have both flows",
            lambda: flowtable.snoop_counters(name, "all", ns) == (2, 0),  # noqa: B023
        )
    flowtable.drop_table("third", ns)
    with bpf.open_flowmap(ns) as fd:
        assert bpf.flowmap_entry_count(fd) == 2


@pytest.mark.clause("SN-3.1", "SN-9.2", "RT-3.1")
@pytest.mark.parametrize("other", ["map", "snoop-table"])
def test_two_views_that_are_the_first_of_a_netns_have_all_flows(
    private_router: Router,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
    other: str,
) -> None:
    """Two views are created at the same time, each as the first: both have every flow.

    The creator of one map is held where it makes what the namespace has once for all views.
    """
    ns = private_router.namespace
    old = open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()

    def create() -> tuple[int, list[bytes]]:
        with bpf.open_flowmap(ns) as fd:
            wait_for("the later flow", lambda: bpf.flowmap_entry_count(fd) == 2)
            return bpf.flowmap_entry_count(fd), sorted(map(bytes, bpf.iterate_keys(fd)))

    creator = child_process.GatedChild(create, HELD_CPU)
    with stop_at(_BUCKETS_ALLOCATOR, tgid=creator.pid, timeout=15) as held:
        creator.start()
        held.wait_until_held(busy_poll=True)
        if other == "map":
            fd = cleanup.enter_context(bpf.open_flowmap(ns))
        else:
            flowtable.create_snoop_table("spy", "all", ns)
        held.release()
    late = open_private_connection(IPPROTO_TCP, 6, server_port=7002).wait_offloaded()
    expected = sorted(bytes(key) for flow in (old, late) for key in flow.keys)
    assert creator.join() == (2, expected)
    if other == "map":
        assert sorted(map(bytes, bpf.iterate_keys(fd))) == expected
    else:
        wait_for(
            "the snoop table to have both flows",
            lambda: flowtable.snoop_counters("spy", "all", ns) == (2, 0),
        )
