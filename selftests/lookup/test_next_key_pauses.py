# SPDX-License-Identifier: GPL-2.0-only
"""A key walk over flows that have all ended at once does not keep grace periods from ending."""

from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import DeadlineExceeded, wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

FLOWS = 300
"""More keys than the kernel passes between two pauses of a call (256)."""
_CHECKED = "ipv4_dst_check"
"""The kernel checks the route of each entry that a walk considers."""
_BEHIND_FENTRY = 5
"""Octets of the call at a function's entry.  A kprobe holds the call there: with several ftrace
callbacks at one function the held task crashed when it went on (kernel with BPF LSM)."""
_GARBAGE_COLLECTION = "nf_flow_offload_work_gc"
_CHECKS = range(0, 2 * FLOWS, 80)
"""Numbers of the checks at which the call is held."""
_PATIENCE = 0.1
"""Seconds before scaling that the call is held at each check but the last."""


def _next_key_is_found(fd: int) -> bool:
    try:
        bpf.next_key(fd, None)
    except FileNotFoundError:
        return False
    return True


@pytest.mark.clause("FM-6.10", "FM-6.11", "SN-12.5")
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("pinned_to_test_cpu", "require_preempt_rcu")
def test_get_next_key_over_ended_flows_lets_grace_period_end(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    make_netns: MakeNetns,
) -> None:
    """A grace period that begins during BPF_MAP_GET_NEXT_KEY ends before the call does.

    A route change makes the routes of all IPv4 flows stale.  The call is held at its first check of
    a route, where the grace period begins, and at later ones.
    """
    namespace, other = private_router.namespace, make_netns("fm-waits")
    netns.set_sysctls(namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    for number in range(FLOWS):
        open_private_connection(IPPROTO_UDP, 4, server_port=7200 + number).wait_offloaded()
    # Creating a map waits for a grace period, and the other map's flows are in another index.
    creator = child_process.GatedChild(lambda: _create_and_close(other), TEST_CPU)
    caller = child_process.GatedChild(lambda: _next_key_is_found(private_flowmap), HELD_CPU)
    assert make_flowmap(other) >= 0
    with (
        stop_at(_GARBAGE_COLLECTION, comm="kworker", timeout=15) as collection,
        ExitStack() as stops,
    ):
        # Otherwise it removes the flows while the call is held.
        collection.wait_until_held()
        held = [
            stops.enter_context(
                stop_at(_CHECKED, offset=_BEHIND_FENTRY, tgid=caller.pid, skip=skip, timeout=15)
            )
            for skip in _CHECKS
        ]
        stale = rtnetlink.add_blackhole_route("203.0.113.200", 32)
        netlink.transact(netlink.NETLINK_ROUTE, [stale], namespace)
        caller.start()
        held[0].wait_until_held(busy_poll=True)
        creator.start()
        wait_for("the creation to wait", lambda: _state(creator.pid) == "D")
        for stop, following in pairwise(held):
            # Another grace period may have to end first, so the call is held several times.
            with suppress(DeadlineExceeded):
                wait_for("the creation to end", lambda: _state(creator.pid) == "Z", _PATIENCE)
            stop.release()
            following.wait_until_held(busy_poll=True)
        # If the call never paused, the creation waits for the call's end, and the call is held.
        creator.join()
        held[-1].release()
        collection.release()
    assert caller.join() is False


def _create_and_close(namespace: str) -> None:
    with bpf.open_flowmap(namespace):
        pass


def _state(pid: int) -> str:
    """Return the state of a process, such as D for an uninterruptible sleep or Z for a zombie."""
    return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0]
