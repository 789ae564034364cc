# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings with a flow's removal from its source table, the snoop tables and memory."""

import pytest

from fixtures.flowmap.uapi import Value
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, Connection, build_frame
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

XDP_PASS = 2


@pytest.mark.clause("FM-9.1", "SN-6.9", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flow_free_follows_removal_of_snoop_entries(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """The snoop entries are removed before the flow is handed to RCU.

    The flow's grace period would not cover a lookup that finds an entry later.
    """
    udp_connection.wait_offloaded()
    assert bpf.flowmap_entry_count(private_flowmap) == 1
    with stop_at("flow_offload_free") as flow_free:
        conntrack.flush(private_router.namespace)
        flow_free.wait_until_held()
        assert bpf.flowmap_entry_count(private_flowmap) == 0
        flow_free.release()


@pytest.mark.clause("FM-6.2", "FM-6.7", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_snoop_entry_removal_does_not_wait_for_key_walk_at_it(
    private_router: Router, private_flowmap: int, udp_connection: Connection, make_netns: MakeNetns
) -> None:
    """An entry is removed while a key walk is at it; the walk ends, with each key at most once."""
    flow = udp_connection.wait_offloaded()
    walker = child_process.GatedChild(
        lambda: [bytes(key) for key in bpf.iterate_keys(private_flowmap)], HELD_CPU
    )
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    # A key walk checks the route of the entry it has found.
    with stop_at("ipv4_dst_check", tgid=walker.pid) as walk:
        walker.start()
        walk.wait_until_held(busy_poll=True)
        conntrack.delete(udp_connection.tuple, private_router.namespace)
        wait_for("the flow to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)
        walk.release()
    visited = walker.join()
    assert isinstance(visited, list)
    # The walk had checked already that the connection was alive.
    assert visited in ([], *([bytes(key)] for key in flow.keys))


@pytest.mark.clause("SN-6.1", "SN-10.3", "SN-10.4", "FM-6.10", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flow_readded_between_teardown_and_entry_removal_is_found_once(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """A flow that is added again before the old entry is removed is found and walked once."""
    flow = udp_connection.wait_offloaded()
    with stop_at("__nf_flow_snoop_del") as removal:
        conntrack.flush(private_router.namespace)
        removal.wait_until_held()
        # Removed from the source table, still in the map.
        assert bpf.flowmap_entry_count(private_flowmap) == 1
        assert interleavings.lookup_directions(private_flowmap, flow.keys) == [None, None]
        assert list(bpf.iterate_keys(private_flowmap)) == []

        udp_connection.wait_offloaded()
        assert bpf.flowmap_entry_count(private_flowmap) == 2
        assert interleavings.lookup_directions(private_flowmap, flow.keys) == [0, 1]
        assert len(list(bpf.iterate_keys(private_flowmap))) == 2
        removal.release()
    wait_for("the old entry to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 1)
    assert interleavings.lookup_directions(private_flowmap, flow.keys) == [0, 1]
    assert len(list(bpf.iterate_keys(private_flowmap))) == 2


@pytest.mark.clause("SN-6.1", "SN-6.3", "FM-6.10", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_expired_flow_before_entry_removal_is_miss(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """An expired flow is a miss although its entry is still in the table.

    Its connection is alive and its route is valid; only the teardown flag tells that it ended.
    """
    with stop_at("__nf_flow_snoop_del") as removal:
        flow = udp_connection.wait_offloaded()
        # Shorten the timeout only now: on a slow machine the flow would expire too early.  The
        # flow takes the new timeout with its next packet (flow_offload_refresh()).
        netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 1})
        udp_connection.exchange()
        removal.wait_until_held()
        assert udp_connection.conntrack_entry() is not None
        assert bpf.flowmap_entry_count(private_flowmap) == 1
        assert interleavings.lookup_directions(private_flowmap, flow.keys) == [None, None]
        assert list(bpf.iterate_keys(private_flowmap)) == []
        removal.release()
    wait_for("the entry to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)


@pytest.mark.clause("FM-9.1", "SN-6.4", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flow_deleted_between_prog_lookup_and_value_read_keeps_value(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    make_netns: MakeNetns,
) -> None:
    """A program that looked a flow up reads the same value after the flow was deleted."""
    ns = private_router.namespace
    conn, *others = [
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number) for number in range(4)
    ]
    flow = conn.wait_offloaded()
    value = bpf.lookup(private_flowmap, flow.original)
    program = load_bpf("xdp_flow_lookup", private_flowmap)
    packet = build_frame(private_router.client, private_router.lan, conn.tuple)
    runner = child_process.GatedChild(
        lambda: prog_syscalls.run_xdp(
            program.program_fd("xdp_flow_lookup"), packet, private_router.lan.ifindex, ns
        ),
        HELD_CPU,
    )
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    # The program updates an array before its lookup, and again after it with the value.
    with (
        stop_at("flow_offload_free", cpu=TEST_CPU) as deletion,
        stop_at("array_map_update_elem", tgid=runner.pid, skip=1) as value_read,
    ):
        runner.start()
        value_read.wait_until_held(busy_poll=True)
        conntrack.flush(ns)
        deletion.wait_until_held(busy_poll=True)
        deletion.release()
        wait_for("the flow to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)
        assert interleavings.lookup_directions(private_flowmap, flow.keys) == [None, None]
        # These flows would reuse the memory if it had been freed, as it is freed on this CPU.
        # Sanitizers do not check what a BPF program reads.
        for other in others:
            other.wait_offloaded()
        value_read.release()
    assert runner.join() == XDP_PASS
    raw = bpf.lookup_raw(program.map_fd("last_values"), bytes(4), len(bytes(value)))
    seen_by_program = Value.from_buffer_copy(raw)
    seen_by_program.expires = value.expires = 0  # the program's lookup has refreshed the flow
    assert bytes(seen_by_program) == bytes(value)
