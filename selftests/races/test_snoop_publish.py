# SPDX-License-Identifier: GPL-2.0-only
"""Flows that come and go while a snoop table is being published: it has each once or not."""

from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from fixtures.flowmap.uapi import Key
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel.syncpoints import FAR, NEAR, SPIN_LOCK_BH, hold
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.fixtures import Connect, Namespaces
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


def _create_and_look(router: Router, keys: Sequence[Key]) -> tuple[list[int | None], int, int]:
    with bpf.flowmap(router.namespace) as fd:
        return interleavings.found(fd, keys), len(list(bpf.keys(fd))), bpf.entries(fd)


@pytest.mark.clause("SN-3", "RT-1")
def test_flow_added_between_publication_and_the_first_walk_is_there_once(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    flow = interleavings.known(talk, own_flowmap)
    creator = child_process.Waiting(lambda: _create_and_look(own_router, flow.keys))
    with hold("nf_flow_table_snoop_walk", task=creator.pid) as stop:
        creator.begin()
        stop.reached()
        talk.offloaded()
        stop.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3", "RT-1")
def test_flow_added_behind_the_first_walk_is_there_once(
    own_router: Router, own_flowmap: int, talk: Connection, connection: Connect
) -> None:
    """The youngest flow table is walked first; the walk is held at a flow of an older one."""
    connection(UDP_PROTOCOL, 4).offloaded()
    flow_teardown.reload(talk, own_router)  # makes its flow table the youngest
    flow = interleavings.known(talk, own_flowmap)
    creator = child_process.Waiting(lambda: _create_and_look(own_router, flow.keys), FAR)
    with hold("nf_flow_snoop_add_existing", task=creator.pid) as stop:
        creator.begin()
        stop.reached()
        talk.offloaded()
        stop.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.parametrize("place", ["nf_flow_table_snoop_walk", "nf_flow_snoop_add_existing"])
@pytest.mark.usefixtures("readers_give_way")
def test_flow_deleted_before_the_first_walk_mirrors_it_stays_away(
    own_router: Router, talk: Connection, place: str
) -> None:
    """The walk has not begun, or has this very flow in its hands."""
    flow = talk.offloaded()
    creator = child_process.Waiting(lambda: _create_and_look(own_router, flow.keys), FAR)
    with hold(place, task=creator.pid) as walk, hold("flow_offload_free") as deletion:
        creator.begin()
        walk.reached()
        conntrack.flush(own_router.namespace)
        deletion.reached()
        deletion.release()
        walk.release()
    assert creator.join() == ([None, None], 0, 0)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way", "flowmap_module")
def test_flow_deleted_under_its_adder_is_in_no_table_published_meanwhile(
    own_router: Router, talk: Connection, namespace: Namespaces
) -> None:
    """The deletion knew of no table; then there is one, and the adder looks whether there is."""
    keys = interleavings.keys(talk)
    sender = interleavings.adder(talk)
    creator = child_process.Waiting(lambda: _create_and_look(own_router, keys))
    interleavings.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("synchronize_rcu", task=creator.pid) as publication,
        # For each packet, and at last when the flow is in its table (flow_offload_add()).
        hold("__nf_ct_refresh_acct", cpu=FAR, skip=2) as addition,
    ):
        sender.begin()
        addition.reached(busy=True)
        conntrack.delete(talk.tuple, own_router.namespace)
        deletion.reached(busy=True)
        deletion.release()
        creator.begin()
        publication.reached(busy=True)
        addition.release()
        sender.join()
        publication.release()
    assert creator.join() == ([None, None], 0, 0)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way", "flowmap_module")
def test_flow_deleted_before_the_table_is_in_the_list_does_not_come_back(
    own_router: Router, talk: Connection, namespace: Namespaces
) -> None:
    """Every deletion knows by then that there will be one, and marks its flow for the adder."""
    keys = interleavings.keys(talk)
    sender = interleavings.adder(talk)
    creator = child_process.Waiting(lambda: _create_and_look(own_router, keys), NEAR)
    interleavings.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("__nf_ct_refresh_acct", cpu=FAR, skip=2) as addition,
        ExitStack() as held,
    ):
        # Two stop points at one function would share a trampoline, in which nobody sleeps.
        with hold("synchronize_rcu", task=creator.pid) as before:
            creator.begin()
            before.reached(busy=True)
            # What it does next when the grace period is over is to take the lock of the list.
            between = held.enter_context(hold(SPIN_LOCK_BH, task=creator.pid))
            before.release()
        behind = held.enter_context(hold("synchronize_rcu", task=creator.pid))
        between.reached(busy=True)
        sender.begin()
        addition.reached(busy=True)
        conntrack.delete(talk.tuple, own_router.namespace)
        deletion.reached(busy=True)
        deletion.release()
        between.release()
        behind.reached(busy=True)
        addition.release()
        sender.join()
        behind.release()
    assert creator.join() == ([None, None], 0, 0)
