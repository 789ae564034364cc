# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings between a flow's addition to its source table and to the snoop tables.

No task may sleep there: the adder is held on its CPU, in a softirq, and grace periods wait for it.
"""

import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import FAR, NEAR, hash_tables_wait, hold
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import Namespaces
from fixtures.guest.traffic.connections import Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


def _require_offloaded(conn: Connection) -> None:
    """Assert that conntrack has the connection as offloaded."""
    entry = conn.entry()
    assert entry is not None
    assert entry.offloaded


@pytest.mark.clause("SN-6", "RT-1")
def test_connection_ends_between_the_addition_of_its_flow_and_the_mirror(
    own_flowmap: int, talk: Connection
) -> None:
    """A flow whose connection is deleted between its addition and its mirroring is a miss."""
    flow = interleavings.known(talk, own_flowmap)
    sender = interleavings.adder(talk, own_flowmap)
    with hold("__nf_flow_snoop_add", cpu=FAR) as mirroring:
        sender.begin()
        mirroring.reached()
        _require_offloaded(talk)
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        conntrack.delete(talk.tuple, talk.router.namespace)
        mirroring.release()
    sender.join()
    assert interleavings.found(own_flowmap, flow.keys) == [None, None]
    wait_for("the dying flow to be removed", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("SN-6", "SN-8", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_deleted_between_its_addition_and_the_mirror(
    own_flowmap: int, talk: Connection, namespace: Namespaces
) -> None:
    """A flow deleted between its addition and its mirroring leaves no entry.

    Garbage collection may have passed already, and then nothing would remove a mirrored entry.
    """
    flow = interleavings.known(talk, own_flowmap)
    sender = interleavings.adder(talk, own_flowmap)
    interleavings.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("__nf_flow_snoop_add", cpu=FAR) as mirroring,
    ):
        sender.begin()
        mirroring.reached(busy=True)
        conntrack.delete(talk.tuple, talk.router.namespace)
        deletion.reached(busy=True)
        deletion.release()
        mirroring.release()
    sender.join()
    assert (interleavings.found(own_flowmap, flow.keys), bpf.entries(own_flowmap)) == (
        [None, None],
        0,
    )


def _close_and_wait_freed(fd: int, module: str, syncpoints: ExitStack) -> None:
    """Close a map; wait until it is freed, or until only the held task delays its free."""
    if not hash_tables_wait():
        os.close(fd)
        modules.await_unreferenced(module)
        return
    # Disarming a syncpoint waits for a grace period too.
    grace_period = syncpoints.enter_context(hold("synchronize_rcu", comm="kworker"))
    os.close(fd)
    grace_period.reached()
    grace_period.release()


@pytest.mark.clause("SN-8", "MM-7", "RT-1")
def test_map_goes_between_the_addition_of_a_flow_and_the_mirror(
    own_flowmap: int, flowmap_module: str, talk: Connection
) -> None:
    """The map is freed between a flow's addition and its mirroring; the next map has the flow."""
    flow = interleavings.known(talk, own_flowmap)
    sender = interleavings.adder(talk, own_flowmap)
    with ExitStack() as syncpoints:
        mirroring = syncpoints.enter_context(hold("__nf_flow_snoop_add", cpu=FAR))
        sender.begin()
        mirroring.reached()
        _close_and_wait_freed(own_flowmap, flowmap_module, syncpoints)
        mirroring.release()
    sender.join()
    modules.await_unreferenced(flowmap_module)
    with bpf.flowmap(talk.router.namespace) as fd:
        assert (interleavings.found(fd, flow.keys), bpf.entries(fd)) == ([0, 1], 1)


@pytest.mark.clause("SN-8", "SN-9", "RT-1")
def test_snoop_table_goes_between_the_addition_of_a_flow_and_the_mirror(
    own_flowmap: int, talk: Connection
) -> None:
    """A snoop table is deleted between flow addition and mirroring; the map has the flow."""
    ns = talk.router.namespace
    flow = interleavings.known(talk, own_flowmap)
    flowtable.create_snoop("spy", "all", ns)
    sender = interleavings.adder(talk, own_flowmap)
    dropper = child_process.Waiting(lambda: flowtable.drop_table("spy", ns))
    with (
        # close() of the netlink socket waits for the table's destruction, hence a grace period.
        hold("nft_rcv_nl_event", task=dropper.pid) as committed,
        hold("__nf_flow_snoop_add", cpu=FAR) as mirroring,
    ):
        sender.begin()
        mirroring.reached()
        dropper.begin()
        committed.reached()
        committed.release()
        mirroring.release()
    sender.join()
    dropper.join()
    assert "spy" not in {table.table for table in flowtable.flowtables(ns)}
    assert (interleavings.found(own_flowmap, flow.keys), bpf.entries(own_flowmap)) == ([0, 1], 1)
