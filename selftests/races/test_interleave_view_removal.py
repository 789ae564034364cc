# SPDX-License-Identifier: GPL-2.0-only
"""A flow ends while the only view that has it is removed: the other views stay as they are.

The removal is held where it takes the flow out of what all views share.
"""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules, sysfs_override
from fixtures.guest.kernel.syncpoints import HELD_CPU, stop_at
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

_UNBOUND_CPUS = Path("/sys/devices/virtual/workqueue/cpumask")
_REMOVAL = "nf_flow_index_remove"


@pytest.mark.clause("SN-9.3", "SN-8.1", "FM-11.3", "RT-1.1")
@pytest.mark.deadline(60)
def test_flow_that_ends_during_removal_of_its_only_view_is_subtracted_once(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    make_netns: MakeNetns,
    flowmap_loaded: str,
    cleanup: ExitStack,
) -> None:
    """A view that is full, and so does not have the flow, counts and finds its own flow as before.

    What the removal holds may keep the end of the flow waiting, and the test too; so the removal
    goes on by itself.
    """
    ns = private_router.namespace
    netns.set_sysctls(ns, {"netfilter/nf_flowtable_udp_timeout": 3600})
    small = make_flowmap(ns, uapi.keys_for_flows(1))
    large = make_flowmap(ns)
    held, other = (
        open_private_connection(IPPROTO_UDP, version, server_port=7100 + version)
        for version in (4, 6)
    )
    flow, other_flow = held.wait_offloaded(), other.wait_offloaded()

    def counts() -> tuple[int, int]:
        return bpf.flowmap_entry_count(small), bpf.flowmap_missed_count(small)

    assert counts() == (1, 1)
    # The removal is in a work item, which must not have to run on the CPU of the test.
    cleanup.enter_context(sysfs_override.override(_UNBOUND_CPUS, f"{1 << HELD_CPU:x}"))
    gc_netns = make_netns("fm-gc")
    interleavings.run_gc_on_this_cpu(gc_netns)
    with stop_at(
        _REMOVAL, comm="kworker", cpu=HELD_CPU, timeout=0.5, expect_timeout=True
    ) as removal:
        os.close(large)
        removal.wait_until_held(busy_poll=True)
        conntrack.delete(other_flow.entry.original, ns)
        # Garbage collection ends the flow now, not within a second.
        interleavings.run_gc_on_this_cpu(gc_netns)
        wait_for("the removal to go on", removal.timed_out, seconds=10)
    wait_for("the large map to be freed", lambda: modules.refcount(flowmap_loaded) == 1)
    # A view without a limit has what is in the source tables.
    with bpf.open_flowmap(ns) as later:
        wait_for("the deleted flow to be gone", lambda: bpf.flowmap_entry_count(later) == 1)
    assert counts() == (1, 1)
    assert [bpf.lookup(small, key).dir for key in flow.keys] == [0, 1]

    # The place of the small map's flow is reused, and the count goes with it.
    conntrack.delete(flow.entry.original, ns)
    wait_for("the flow to leave", lambda: counts() == (0, 1))
    newest = other.wait_offloaded()
    assert counts() == (1, 1)
    assert [bpf.lookup(small, key).dir for key in newest.keys] == [0, 1]
    held.wait_offloaded()
    assert counts() == (1, 2)
    with bpf.open_flowmap(ns) as later:
        assert bpf.flowmap_entry_count(later) == 2
