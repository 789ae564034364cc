# SPDX-License-Identifier: GPL-2.0-only
"""The packet that adds a flow, with each allocation on its way failing in turn.

Packets come in over a TUN device: the router forwards them on behalf of the process that
writes them, whose allocations can be counted, and not of a softirq.
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
from fixtures.guest.pytest_plugin.fixtures import require_faults
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import tun

ROUNDS, MOST = 20, 30
"""How often all allocations are tried, and more than a packet's."""


class Outcome(NamedTuple):
    """What became of a flow whose packet could not have some memory."""

    offloaded: bool
    """A flow table has it."""
    found: bool
    """The flow map has it."""
    counted: bool
    """The snoop table has it, and has not counted it as missed."""


FATES = {
    Outcome(offloaded=False, found=False, counted=True),
    Outcome(offloaded=True, found=True, counted=False),
    Outcome(offloaded=True, found=False, counted=True),
}
"""What may become of it, besides nothing: no flow, no entry of the snoop table, none of the map."""


@pytest.mark.clause("SN-7", "SN-9")
@pytest.mark.deadline(300)
def test_flow_is_added_with_each_allocation_failing(
    own_router: Router, own_flowmap: int, cleanup: ExitStack
) -> None:
    """Which allocation is the nth differs from packet to packet, as the caches of slabs and of
    socket buffers fill and empty: so all are tried in turn until each fate has been seen."""
    require_faults()
    flowtable.create_snoop("spy", "all", own_router.namespace)
    wire = tun.beside(own_router, cleanup)
    tun.offload(own_router)
    cleanup.enter_context(fault_injection.enabled())
    flows: list[tun.Talk] = []
    missed = 0

    def answered_without(nth: int) -> tuple[fault_injection.Attempt, Outcome]:
        nonlocal missed
        flow = tun.Talk(own_router, wire, cleanup)
        flow.ask()
        flows.append(flow)
        attempt = child_process.in_child(partial(fault_injection.attempt, flow.answer, nth))
        held, now_missed = flowtable.snooped("spy", "all", own_router.namespace)
        there, back = (bpf.found(own_flowmap, key) is not None for key in flow.keys)
        assert there == back, "half a flow"
        outcome = Outcome(flow.offloaded, there, now_missed == missed)
        missed = now_missed
        assert held == sum(each.offloaded for each in flows) - missed
        return attempt, outcome

    seen: dict[Outcome, int] = {}
    for _ in range(ROUNDS):
        for nth in range(1, MOST):
            attempt, outcome = answered_without(nth)
            if not attempt.failed:
                break
            assert attempt.errno in (0, errno.ENOMEM, errno.ENOBUFS)
            seen[outcome] = seen.get(outcome, 0) + 1
        # It had all that it asked for.
        assert outcome == Outcome(True, True, True)
        if set(seen) >= FATES:
            break
    print(seen)
    # Each copy is memory of its own, and a flow that is not there is in no copy.
    assert set(seen) - {Outcome(True, True, True)} == FATES
    for flow in flows:
        flow.answer()
        assert flow.offloaded
