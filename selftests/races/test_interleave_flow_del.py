# SPDX-License-Identifier: GPL-2.0-only
"""What may happen while a flow is on its way out of its table, the snoop tables and memory."""

import pytest

from fixtures.flowmap.uapi import Value
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import FAR, NEAR, hold
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.fixtures import Connect, Load, Namespaces
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, frame
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")

XDP_PASS = 2


@pytest.mark.clause("FM-9", "SN-8", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_in_no_copy_when_its_memory_is_let_go(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """Who looks it up later than that, nobody waits for."""
    talk.offloaded()
    assert bpf.entries(own_flowmap) == 1
    with hold("flow_offload_free") as stop:
        conntrack.flush(own_router.namespace)
        stop.reached()
        assert bpf.entries(own_flowmap) == 0
        stop.release()


@pytest.mark.clause("FM-6", "RT-1")
def test_flow_leaves_the_order_when_the_walk_that_looks_at_it_has_gone_on(
    own_router: Router, own_flowmap: int, talk: Connection, namespace: Namespaces
) -> None:
    """Who removes it spins until then, on the CPU of the test."""
    talk.offloaded()
    walker = child_process.Waiting(lambda: list(bpf.keys(own_flowmap)), FAR)
    interleavings.collect_garbage_here(namespace("fm-gc"))
    # A walk asks whether the route of what it has found is still good.
    with hold("ipv4_dst_check", task=walker.pid, seconds=2.0, lapses=True) as stop:
        walker.begin()
        stop.reached(busy=True)
        conntrack.delete(talk.tuple, own_router.namespace)
        wait_for("the flow to be removed", lambda: bpf.entries(own_flowmap) == 0, 30.0)
        assert stop.lapsed()
    walker.join()


@pytest.mark.clause("SN-6", "SN-10", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_comes_back_between_teardown_and_removal(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    flow = talk.offloaded()
    with hold("__nf_flow_snoop_del") as stop:
        conntrack.flush(own_router.namespace)
        stop.reached()
        # Out of its own table, and still in the map's.
        assert bpf.entries(own_flowmap) == 1
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        assert list(bpf.keys(own_flowmap)) == []

        talk.offloaded()
        assert bpf.entries(own_flowmap) == 2
        assert interleavings.found(own_flowmap, flow.keys) == [0, 1]
        assert len(list(bpf.keys(own_flowmap))) == 2
        stop.release()
    wait_for("the old entry to go", lambda: bpf.entries(own_flowmap) == 1)
    assert interleavings.found(own_flowmap, flow.keys) == [0, 1]
    assert len(list(bpf.keys(own_flowmap))) == 2


@pytest.mark.clause("SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_that_has_expired_is_not_found_until_its_removal(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """Its connection lives and its route is good: that it is torn down is all there is to see."""
    with hold("__nf_flow_snoop_del") as stop:
        flow = talk.offloaded()
        # Not before: on a slow machine it would be gone before anybody waits for it.  The flow
        # takes a shorter timeout with its next packet (flow_offload_refresh()).
        netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 1})
        talk.exchange()
        stop.reached()
        assert talk.entry() is not None
        assert bpf.entries(own_flowmap) == 1
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        assert list(bpf.keys(own_flowmap)) == []
        stop.release()
    wait_for("the entry to go", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("FM-9", "SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_deleted_between_a_lookup_and_the_use_of_its_value(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
    namespace: Namespaces,
) -> None:
    inside = own_router.namespace
    talk, *others = [own_connection(UDP_PROTOCOL, 4, server_port=7000 + n) for n in range(4)]
    flow = talk.offloaded()
    told = bpf.lookup(own_flowmap, flow.original)
    program = load("xdp_flow_lookup", own_flowmap)
    packet = frame(own_router.client, own_router.inside, talk.tuple)
    runner = child_process.Waiting(
        lambda: prog_syscalls.run_xdp(
            program.program_fd("xdp_flow_lookup"), packet, own_router.inside.index, inside
        ),
        FAR,
    )
    interleavings.collect_garbage_here(namespace("fm-gc"))
    # The program updates an array before its lookup, and after it with the value.
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("array_map_update_elem", task=runner.pid, skip=1) as stop,
    ):
        runner.begin()
        stop.reached(busy=True)
        conntrack.flush(inside)
        deletion.reached(busy=True)
        deletion.release()
        wait_for("the flow to be gone", lambda: bpf.entries(own_flowmap) == 0)
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        # Had its memory been freed, they would have it now: it was let go on this CPU, too.  No
        # sanitizer looks at what a program reads.
        for other in others:
            other.offloaded()
        stop.release()
    assert runner.join() == XDP_PASS
    raw = bpf.lookup_raw(program.map_fd("last_values"), bytes(4), len(bytes(told)))
    seen = Value.from_buffer_copy(raw)
    seen.expires = told.expires = 0  # the program's lookup has refreshed the flow
    assert bytes(seen) == bytes(told)
