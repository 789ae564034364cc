# SPDX-License-Identifier: GPL-2.0-only
"""What may happen between the addition of a flow to its own table and to the snoop tables.

Nothing may sleep there: an adder is held on its CPU, in a softirq of whoever is there, and grace
periods wait for it.
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
from fixtures.guest.pytest_plugin.fixtures import Namespaces
from fixtures.guest.traffic.connections import Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


def _require_offloaded(talk: Connection) -> None:
    entry = talk.entry()
    assert entry is not None
    assert entry.offloaded


@pytest.mark.clause("SN-6", "RT-1")
def test_connection_ends_between_the_addition_of_its_flow_and_the_mirror(
    own_flowmap: int, talk: Connection
) -> None:
    flow = interleavings.known(talk, own_flowmap)
    sender = interleavings.adder(talk, own_flowmap)
    with hold("__nf_flow_snoop_add", cpu=FAR) as stop:
        sender.begin()
        stop.reached()
        _require_offloaded(talk)
        assert interleavings.found(own_flowmap, flow.keys) == [None, None]
        conntrack.delete(talk.tuple, talk.router.namespace)
        stop.release()
    sender.join()
    assert interleavings.found(own_flowmap, flow.keys) == [None, None]
    wait_for("the dead flow to go", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("SN-6", "SN-8", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_deleted_between_its_addition_and_the_mirror(
    own_flowmap: int, talk: Connection, namespace: Namespaces
) -> None:
    """Garbage collection may have come and gone: there is nobody left who would remove a copy."""
    flow = interleavings.known(talk, own_flowmap)
    sender = interleavings.adder(talk, own_flowmap)
    interleavings.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("__nf_flow_snoop_add", cpu=FAR) as stop,
    ):
        sender.begin()
        stop.reached(busy=True)
        conntrack.delete(talk.tuple, talk.router.namespace)
        deletion.reached(busy=True)
        deletion.release()
        stop.release()
    sender.join()
    assert (interleavings.found(own_flowmap, flow.keys), bpf.entries(own_flowmap)) == (
        [None, None],
        0,
    )


def _free(fd: int, module: str, held: ExitStack) -> None:
    """Close a map, and wait until it is freed or waits for nothing but who is held."""
    if not hash_tables_wait():
        os.close(fd)
        modules.await_unreferenced(module)
        return
    # The end of a stop point waits for a grace period, too.
    waits = held.enter_context(hold("synchronize_rcu", comm="kworker"))
    os.close(fd)
    waits.reached()
    waits.release()


@pytest.mark.clause("SN-8", "MM-7", "RT-1")
def test_map_goes_between_the_addition_of_a_flow_and_the_mirror(
    own_flowmap: int, flowmap_module: str, talk: Connection
) -> None:
    flow = interleavings.known(talk, own_flowmap)
    sender = interleavings.adder(talk, own_flowmap)
    with ExitStack() as held:
        stop = held.enter_context(hold("__nf_flow_snoop_add", cpu=FAR))
        sender.begin()
        stop.reached()
        _free(own_flowmap, flowmap_module, held)
        stop.release()
    sender.join()
    modules.await_unreferenced(flowmap_module)
    with bpf.flowmap(talk.router.namespace) as fd:
        assert (interleavings.found(fd, flow.keys), bpf.entries(fd)) == ([0, 1], 1)


@pytest.mark.clause("SN-8", "SN-9", "RT-1")
def test_snoop_table_goes_between_the_addition_of_a_flow_and_the_mirror(
    own_flowmap: int, talk: Connection
) -> None:
    inside = talk.router.namespace
    flow = interleavings.known(talk, own_flowmap)
    flowtable.create_snoop("spy", "all", inside)
    sender = interleavings.adder(talk, own_flowmap)
    dropper = child_process.Waiting(lambda: flowtable.drop_table("spy", inside))
    with (
        # Closing its socket waits for the destruction, which waits for a grace period.
        hold("nft_rcv_nl_event", task=dropper.pid) as committed,
        hold("__nf_flow_snoop_add", cpu=FAR) as stop,
    ):
        sender.begin()
        stop.reached()
        dropper.begin()
        committed.reached()
        committed.release()
        stop.release()
    sender.join()
    dropper.join()
    assert "spy" not in {table.table for table in flowtable.flowtables(inside)}
    assert (interleavings.found(own_flowmap, flow.keys), bpf.entries(own_flowmap)) == ([0, 1], 1)
