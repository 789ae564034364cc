# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings with a flow's removal from its source table, the snoop tables and memory."""

import pytest

from fixtures.flowmap.uapi import Value
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import FAR, NEAR, hold
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import Connect, Load, Namespaces
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
    """The snoop entries are removed before the flow is handed to RCU.

    The flow's grace period would not cover a lookup that finds an entry later.
    """
    talk.offloaded()
    assert bpf.entries(own_flowmap) == 1
    with hold("flow_offload_free") as flow_free:
        conntrack.flush(own_router.namespace)
        flow_free.reached()
        assert bpf.entries(own_flowmap) == 0
        flow_free.release()


@pytest.mark.clause("FM-6", "RT-1")
def test_flow_leaves_the_order_when_the_walk_that_looks_at_it_has_gone_on(
    own_router: Router, own_flowmap: int, talk: Connection, namespace: Namespaces
) -> None:
    """The removal of a snoop entry waits for a key walk that is at this entry.

    The removing task spins until then, on the CPU of the test.
    """
    talk.offloaded()
    walker = child_process.Waiting(lambda: list(bpf.keys(own_flowmap)), FAR)
    interleavings.collect_garbage_here(namespace("fm-gc"))
    # A key walk checks the route of the entry it has found.
    with hold("ipv4_dst_check", task=walker.pid, seconds=2.0, lapses=True) as walk:
        walker.begin()
        walk.reached(busy=True)
        conntrack.delete(talk.tuple, own_router.namespace)
        wait_for("the flow to be removed", lambda: bpf.entries(own_flowmap) == 0, 30.0)
        assert walk.lapsed()
    walker.join()


@pytest.mark.clause("SN-6", "SN-10", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_comes_back_between_teardown_and_removal(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """A flow that is added again before the old entry is removed is found and walked once."""
    flow = talk.offloaded()
    with hold("__nf_flow_snoop_del") as removal:
        conntrack.flush(own_router.namespace)
        removal.reached()
        # Removed from the source table, still in the map.
        assert bpf.entries(own_flowmap) == 1
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        assert list(bpf.keys(own_flowmap)) == []

        talk.offloaded()
        assert bpf.entries(own_flowmap) == 2
        assert interleavings.found(own_flowmap, flow.keys) == [0, 1]
        assert len(list(bpf.keys(own_flowmap))) == 2
        removal.release()
    wait_for("the old entry to be removed", lambda: bpf.entries(own_flowmap) == 1)
    assert interleavings.found(own_flowmap, flow.keys) == [0, 1]
    assert len(list(bpf.keys(own_flowmap))) == 2


@pytest.mark.clause("SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_that_has_expired_is_not_found_until_its_removal(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """An expired flow is a miss although its entry is still in the table.

    Its connection is alive and its route is valid; only the teardown flag tells that it ended.
    """
    with hold("__nf_flow_snoop_del") as removal:
        flow = talk.offloaded()
        # Shorten the timeout only now: on a slow machine the flow would expire too early.  The
        # flow takes the new timeout with its next packet (flow_offload_refresh()).
        netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 1})
        talk.exchange()
        removal.reached()
        assert talk.entry() is not None
        assert bpf.entries(own_flowmap) == 1
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        assert list(bpf.keys(own_flowmap)) == []
        removal.release()
    wait_for("the entry to be removed", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("FM-9", "SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_deleted_between_a_lookup_and_the_use_of_its_value(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
    namespace: Namespaces,
) -> None:
    """A program that looked a flow up reads the same value after the flow was deleted."""
    ns = own_router.namespace
    conn, *others = [
        own_connection(UDP_PROTOCOL, 4, server_port=7000 + number) for number in range(4)
    ]
    flow = conn.offloaded()
    value = bpf.lookup(own_flowmap, flow.original)
    program = load("xdp_flow_lookup", own_flowmap)
    packet = frame(own_router.client, own_router.inside, conn.tuple)
    runner = child_process.Waiting(
        lambda: prog_syscalls.run_xdp(
            program.program_fd("xdp_flow_lookup"), packet, own_router.inside.index, ns
        ),
        FAR,
    )
    interleavings.collect_garbage_here(namespace("fm-gc"))
    # The program updates an array before its lookup, and again after it with the value.
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("array_map_update_elem", task=runner.pid, skip=1) as value_read,
    ):
        runner.begin()
        value_read.reached(busy=True)
        conntrack.flush(ns)
        deletion.reached(busy=True)
        deletion.release()
        wait_for("the flow to be removed", lambda: bpf.entries(own_flowmap) == 0)
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        # These flows would reuse the memory if it had been freed, as it is freed on this CPU.
        # Sanitizers do not check what a BPF program reads.
        for other in others:
            other.offloaded()
        value_read.release()
    assert runner.join() == XDP_PASS
    raw = bpf.lookup_raw(program.map_fd("last_values"), bytes(4), len(bytes(value)))
    seen_by_program = Value.from_buffer_copy(raw)
    seen_by_program.expires = value.expires = 0  # the program's lookup has refreshed the flow
    assert bytes(seen_by_program) == bytes(value)
