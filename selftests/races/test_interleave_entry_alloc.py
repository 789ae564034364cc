# SPDX-License-Identifier: GPL-2.0-only
"""A flow's adder and the first walk of a new view meet at the same flow: it gets one entry.

The adder is held while it allocates the entry.  A walk that does not wait for it meanwhile would
make another one, of which the flow does not know.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import sysfs_override
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

_UNBOUND_CPUS = Path("/sys/devices/virtual/workqueue/cpumask")
_WALK = "nf_flow_table_snoop_walk"
_TAKE = "nf_flow_index_take"
_ALLOCATION = "kmem_cache_alloc_noprof"


@pytest.mark.clause("SN-3.2", "SN-3.3", "SN-13.1", "RT-1.1")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_flow_taken_by_adder_and_first_walk_at_once_has_one_entry(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
    version: int,
) -> None:
    """The flow is counted once in the old view and in the new one, and leaves both at its end.

    The walk of the new view begins when the adder, which has seen the view, allocates.  What the
    adder holds then may keep the walk waiting, and the test too; so the adder goes on by itself.
    """
    ns = private_router.namespace
    conn = open_private_connection(IPPROTO_UDP, version)
    sender = interleavings.gated_sender(conn)
    # The walk is in a work item, which must not have to run on the CPU of the adder.
    cleanup.enter_context(sysfs_override.override(_UNBOUND_CPUS, f"{1 << TEST_CPU:x}"))

    def counts() -> list[tuple[int, int]]:
        in_map = bpf.flowmap_entry_count(private_flowmap), bpf.flowmap_missed_count(private_flowmap)
        return [in_map, flowtable.snoop_counters("spy", "all", ns)]

    with stop_at(_WALK, comm="kworker", timeout=15) as walk:
        flowtable.create_snoop_table("spy", "all", ns)
        walk.wait_until_held()
        with stop_at(_TAKE, cpu=HELD_CPU) as taking:
            sender.start()
            taking.wait_until_held(busy_poll=True)
            with stop_at(_ALLOCATION, cpu=HELD_CPU, timeout=0.5, expect_timeout=True) as allocation:
                taking.release()
                allocation.wait_until_held(busy_poll=True)
                walk.release()
                wait_for("the adder to go on", allocation.timed_out)
    sender.join()
    wait_for("the new view to have the flow", lambda: counts()[1][0] > 0)
    assert counts() == [(1, 0), (1, 0)]
    flow = conn.wait_offloaded()
    with bpf.open_flowmap(ns) as later:
        for fd in (private_flowmap, later):
            assert interleavings.lookup_directions(fd, flow.keys) == [0, 1]
            assert sorted(map(bytes, bpf.iterate_keys(fd))) == sorted(map(bytes, flow.keys))
    conntrack.flush(ns)
    wait_for("both views to lose the flow", lambda: counts() == [(0, 0), (0, 0)])
    assert interleavings.lookup_directions(private_flowmap, flow.keys) == [None, None]
    assert list(bpf.iterate_keys(private_flowmap)) == []
