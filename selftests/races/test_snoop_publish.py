# SPDX-License-Identifier: GPL-2.0-only
"""Flow addition and deletion during a snoop table's publication: no entry is doubled or stale."""

from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from fixtures.flowmap.uapi import Key
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel.syncpoints import FAR, NEAR, SPIN_LOCK_BH, hold
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import Connect, Namespaces
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


def _create_map_and_look_up(
    router: Router, keys: Sequence[Key]
) -> tuple[list[int | None], int, int]:
    """Create a flow map; return the found directions, the number of keys and of flows."""
    with bpf.flowmap(router.namespace) as fd:
        return interleavings.found(fd, keys), len(list(bpf.keys(fd))), bpf.entries(fd)


@pytest.mark.clause("SN-3", "RT-1")
def test_flow_added_between_publication_and_the_first_walk_is_there_once(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """A flow added between the table's publication and its initial walk is mirrored once."""
    flow = interleavings.known(talk, own_flowmap)
    creator = child_process.Waiting(lambda: _create_map_and_look_up(own_router, flow.keys))
    with hold("nf_flow_table_snoop_walk", task=creator.pid) as walk:
        creator.begin()
        walk.reached()
        talk.offloaded()
        walk.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3", "RT-1")
def test_flow_added_behind_the_first_walk_is_there_once(
    own_router: Router, own_flowmap: int, talk: Connection, connection: Connect
) -> None:
    """A flow added to a source table that the initial walk has already passed is mirrored once.

    The walk starts at the newest source table, and is held at a flow of an older one.
    """
    connection(UDP_PROTOCOL, 4).offloaded()
    flow_teardown.reload(talk, own_router)  # makes its source table the newest
    flow = interleavings.known(talk, own_flowmap)
    creator = child_process.Waiting(lambda: _create_map_and_look_up(own_router, flow.keys), FAR)
    with hold("nf_flow_snoop_add_existing", task=creator.pid) as walk:
        creator.begin()
        walk.reached()
        talk.offloaded()
        walk.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.parametrize(
    "stop_function", ["nf_flow_table_snoop_walk", "nf_flow_snoop_add_existing"]
)
@pytest.mark.usefixtures("readers_give_way")
def test_flow_deleted_before_the_first_walk_mirrors_it_stays_away(
    own_router: Router, talk: Connection, stop_function: str
) -> None:
    """A flow deleted before the initial walk mirrors it is not mirrored.

    The walk is held before it starts, or at this very flow.
    """
    flow = talk.offloaded()
    creator = child_process.Waiting(lambda: _create_map_and_look_up(own_router, flow.keys), FAR)
    with hold(stop_function, task=creator.pid) as walk, hold("flow_offload_free") as deletion:
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
    """A flow deleted while it is being added is absent from a table published in between.

    The deletion finds no snoop table; the adder finds the new one and must not mirror the flow.
    """
    keys = interleavings.keys(talk)
    sender = interleavings.adder(talk)
    creator = child_process.Waiting(lambda: _create_map_and_look_up(own_router, keys))
    interleavings.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("synchronize_rcu", task=creator.pid) as publication,
        # Called once per packet; the third call follows the insertion in flow_offload_add().
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
    """A flow deleted after a table's first grace period, before it is in the list, is not mirrored.

    Every deletion then knows that a table is coming, and marks its flow for the adder.
    """
    keys = interleavings.keys(talk)
    sender = interleavings.adder(talk)
    creator = child_process.Waiting(lambda: _create_map_and_look_up(own_router, keys), NEAR)
    interleavings.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("__nf_ct_refresh_acct", cpu=FAR, skip=2) as addition,
        ExitStack() as syncpoints,
    ):
        # Two syncpoints at one function would share a trampoline, in which no task may sleep.
        with hold("synchronize_rcu", task=creator.pid) as first_grace_period:
            creator.begin()
            first_grace_period.reached(busy=True)
            # After the grace period the creator takes the lock of the list.
            list_lock = syncpoints.enter_context(hold(SPIN_LOCK_BH, task=creator.pid))
            first_grace_period.release()
        second_grace_period = syncpoints.enter_context(hold("synchronize_rcu", task=creator.pid))
        list_lock.reached(busy=True)
        sender.begin()
        addition.reached(busy=True)
        conntrack.delete(talk.tuple, own_router.namespace)
        deletion.reached(busy=True)
        deletion.release()
        list_lock.release()
        second_grace_period.reached(busy=True)
        addition.release()
        sender.join()
        second_grace_period.release()
    assert creator.join() == ([None, None], 0, 0)
