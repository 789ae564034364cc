# SPDX-License-Identifier: GPL-2.0-only
"""Flow addition with the nth allocation of its packet failing, for each n.

Packets enter the router over a TUN device.  It forwards them in the context of the writing
process, whose allocations can be counted, and not in a softirq.
"""

import errno
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel import fault_injection
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import require_fault_injection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import tun

ROUNDS, MAX_ALLOCATIONS = 20, 30
"""Repetitions of all allocations, and an upper bound of the allocations of one packet."""


class Outcome(NamedTuple):
    """State of a flow after one allocation of its packet failed."""

    offloaded: bool
    """A source table has the flow."""
    found: bool
    """The flow map has the flow."""
    counted: bool
    """Neither snoop table nor map counted the flow as missed."""


EXPECTED_OUTCOMES = {
    Outcome(offloaded=False, found=False, counted=True),
    Outcome(offloaded=True, found=False, counted=False),
}
"""Not offloaded; missed by both views, for which one entry is allocated."""


@pytest.mark.clause("SN-7.1", "SN-7.4", "SN-2.5")
@pytest.mark.deadline(300)
def test_flow_add_with_nth_alloc_failing_mirrors_or_counts_miss(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A failing allocation prevents the flow, or its entry, which all views then count as missed.

    The order of allocations differs from packet to packet, as slab and skb caches fill and empty.
    So every n is tried repeatedly until each outcome has been seen.
    """
    require_fault_injection()
    flowtable.create_snoop_table("spy", "all", private_router.namespace)
    wire = tun.add_tun(private_router, cleanup)
    tun.add_to_flowtable(private_router)
    cleanup.enter_context(fault_injection.all_allocations_eligible())
    flows: list[tun.TunConnection] = []
    missed = 0

    def reply_with_failing_alloc(nth: int) -> tuple[fault_injection.Attempt, Outcome]:
        nonlocal missed
        flow = tun.TunConnection(private_router, wire, cleanup)
        flow.send_request()
        flows.append(flow)
        attempt = child_process.run_in_child(
            partial(fault_injection.fail_nth_allocation, flow.send_reply, nth)
        )
        entries, now_missed = flowtable.snoop_counters("spy", "all", private_router.namespace)
        original, reply = (
            bpf.lookup_or_none(private_flowmap, key) is not None for key in flow.keys
        )
        assert original == reply, "only one direction is mirrored"
        outcome = Outcome(flow.offloaded, original, now_missed == missed)
        missed = now_missed
        assert entries == sum(added.offloaded for added in flows) - missed
        counts = bpf.flowmap_entry_count(private_flowmap), bpf.flowmap_missed_count(private_flowmap)
        assert counts == (entries, missed)
        return attempt, outcome

    seen: dict[Outcome, int] = {}
    for _ in range(ROUNDS):
        for nth in range(1, MAX_ALLOCATIONS):
            attempt, outcome = reply_with_failing_alloc(nth)
            if not attempt.injected:
                break
            assert attempt.errno in (0, errno.ENOMEM, errno.ENOBUFS)
            seen[outcome] = seen.get(outcome, 0) + 1
        # No allocation failed in the last attempt.
        assert outcome == Outcome(True, True, True)
        if set(seen) >= EXPECTED_OUTCOMES:
            break
    print(seen)
    # The views share a flow's entry; a refused flow has none.
    assert set(seen) - {Outcome(True, True, True)} == EXPECTED_OUTCOMES
    for flow in flows:
        flow.send_reply()
        assert flow.offloaded
