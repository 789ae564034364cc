# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings between a flow's addition to its source table and to the snoop tables.

No task may sleep there: the adder is held on its CPU, in a softirq, and grace periods wait for it.
"""

import os

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns
from fixtures.guest.traffic.connections import Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")


def _require_offloaded(conn: Connection) -> None:
    """Assert that conntrack has the connection as offloaded."""
    entry = conn.conntrack_entry()
    assert entry is not None
    assert entry.offloaded


@pytest.mark.clause("SN-6.1", "SN-6.4", "RT-1.1")
def test_conntrack_delete_between_flow_add_and_mirror_is_miss(
    private_flowmap: int, udp_connection: Connection
) -> None:
    """A flow whose connection is deleted between its addition and its mirroring is a miss."""
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    sender = interleavings.gated_sender(udp_connection, private_flowmap)
    with stop_at("__nf_flow_snoop_add", cpu=HELD_CPU) as mirroring:
        sender.start()
        mirroring.wait_until_held()
        _require_offloaded(udp_connection)
        assert interleavings.lookup_directions(private_flowmap, flow.keys) == [None, None]
        conntrack.delete(udp_connection.tuple, udp_connection.router.namespace)
        mirroring.release()
    sender.join()
    assert interleavings.lookup_directions(private_flowmap, flow.keys) == [None, None]
    wait_for("the dying flow to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)


@pytest.mark.clause("SN-6.4", "SN-6.9", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flow_deleted_between_add_and_mirror_leaves_no_entry(
    private_flowmap: int, udp_connection: Connection, make_netns: MakeNetns
) -> None:
    """A flow deleted between its addition and its mirroring leaves no entry.

    Garbage collection may have passed already, and then nothing would remove a mirrored entry.
    """
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    sender = interleavings.gated_sender(udp_connection, private_flowmap)
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    with (
        stop_at("flow_offload_free", cpu=TEST_CPU) as deletion,
        stop_at("__nf_flow_snoop_add", cpu=HELD_CPU) as mirroring,
    ):
        sender.start()
        mirroring.wait_until_held(busy_poll=True)
        conntrack.delete(udp_connection.tuple, udp_connection.router.namespace)
        deletion.wait_until_held(busy_poll=True)
        deletion.release()
        mirroring.release()
    sender.join()
    assert (
        interleavings.lookup_directions(private_flowmap, flow.keys),
        bpf.flowmap_entry_count(private_flowmap),
    ) == (
        [None, None],
        0,
    )


@pytest.mark.clause("SN-3.1", "SN-3.4", "RT-1.1")
def test_map_freed_between_flow_add_and_mirror_next_map_has_flow(
    private_flowmap: int, flowmap_loaded: str, udp_connection: Connection
) -> None:
    """The map is freed between a flow's addition and its mirroring; the next map has the flow."""
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    sender = interleavings.gated_sender(udp_connection, private_flowmap)
    with stop_at("__nf_flow_snoop_add", cpu=HELD_CPU) as mirroring:
        sender.start()
        mirroring.wait_until_held()
        # The free of the map does not wait for the held task; that of its view does.
        os.close(private_flowmap)
        modules.wait_until_unreferenced(flowmap_loaded)
        mirroring.release()
    sender.join()
    with bpf.open_flowmap(udp_connection.router.namespace) as fd:
        assert (interleavings.lookup_directions(fd, flow.keys), bpf.flowmap_entry_count(fd)) == (
            [0, 1],
            1,
        )


@pytest.mark.clause("SN-9.3", "RT-1.1")
def test_snoop_table_deleted_between_flow_add_and_mirror_map_has_flow(
    private_flowmap: int, udp_connection: Connection
) -> None:
    """A snoop table is deleted between flow addition and mirroring; the map has the flow."""
    ns = udp_connection.router.namespace
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    flowtable.create_snoop_table("spy", "all", ns)
    sender = interleavings.gated_sender(udp_connection, private_flowmap)
    dropper = child_process.GatedChild(lambda: flowtable.drop_table("spy", ns))
    with (
        # close() of the netlink socket waits for the table's destruction, hence a grace period.
        stop_at("nft_rcv_nl_event", tgid=dropper.pid) as committed,
        stop_at("__nf_flow_snoop_add", cpu=HELD_CPU) as mirroring,
    ):
        sender.start()
        mirroring.wait_until_held()
        dropper.start()
        committed.wait_until_held()
        committed.release()
        mirroring.release()
    sender.join()
    dropper.join()
    assert "spy" not in {table.table for table in flowtable.list_flowtables(ns)}
    assert (
        interleavings.lookup_directions(private_flowmap, flow.keys),
        bpf.flowmap_entry_count(private_flowmap),
    ) == ([0, 1], 1)
