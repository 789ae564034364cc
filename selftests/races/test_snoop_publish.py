# SPDX-License-Identifier: GPL-2.0-only
"""Flow addition and deletion during a snoop table's publication: no entry is doubled or stale."""

from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from fixtures.flowmap.uapi import Key
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel.syncpoints import HELD_CPU, SPIN_LOCK_BH_SYMBOL, TEST_CPU, stop_at
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import IPPROTO_UDP, Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")


def _create_map_and_look_up(
    router: Router, keys: Sequence[Key]
) -> tuple[list[int | None], int, int]:
    """Create a flow map; return the found directions, the number of keys and of flows."""
    with bpf.open_flowmap(router.namespace) as fd:
        return (
            interleavings.lookup_directions(fd, keys),
            len(list(bpf.iterate_keys(fd))),
            bpf.flowmap_entry_count(fd),
        )


@pytest.mark.clause("SN-3", "RT-1")
def test_flow_added_between_publish_and_initial_walk_is_mirrored_once(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """A flow added between the table's publication and its initial walk is mirrored once."""
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    creator = child_process.GatedChild(lambda: _create_map_and_look_up(private_router, flow.keys))
    with stop_at("nf_flow_table_snoop_walk", tgid=creator.pid) as walk:
        creator.start()
        walk.wait_until_held()
        udp_connection.wait_offloaded()
        walk.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3", "RT-1")
def test_flow_added_behind_initial_walk_is_mirrored_once(
    private_router: Router,
    private_flowmap: int,
    udp_connection: Connection,
    open_connection: OpenConnection,
) -> None:
    """A flow added to a source table that the initial walk has already passed is mirrored once.

    The walk starts at the newest source table, and is held at a flow of an older one.
    """
    open_connection(IPPROTO_UDP, 4).wait_offloaded()
    flow_teardown.ruleset_reload(
        udp_connection, private_router
    )  # makes its source table the newest
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    creator = child_process.GatedChild(
        lambda: _create_map_and_look_up(private_router, flow.keys), HELD_CPU
    )
    with stop_at("nf_flow_snoop_add_existing", tgid=creator.pid) as walk:
        creator.start()
        walk.wait_until_held()
        udp_connection.wait_offloaded()
        walk.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.parametrize(
    "stop_function", ["nf_flow_table_snoop_walk", "nf_flow_snoop_add_existing"]
)
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flow_deleted_before_initial_walk_mirrors_it_is_not_mirrored(
    private_router: Router, udp_connection: Connection, stop_function: str
) -> None:
    """A flow deleted before the initial walk mirrors it is not mirrored.

    The walk is held before it starts, or at this very flow.
    """
    flow = udp_connection.wait_offloaded()
    creator = child_process.GatedChild(
        lambda: _create_map_and_look_up(private_router, flow.keys), HELD_CPU
    )
    with stop_at(stop_function, tgid=creator.pid) as walk, stop_at("flow_offload_free") as deletion:
        creator.start()
        walk.wait_until_held()
        conntrack.flush(private_router.namespace)
        deletion.wait_until_held()
        deletion.release()
        walk.release()
    assert creator.join() == ([None, None], 0, 0)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.usefixtures("require_preempt_rcu", "flowmap_loaded")
def test_flow_deleted_during_add_is_absent_from_new_snoop_table(
    private_router: Router, udp_connection: Connection, make_netns: MakeNetns
) -> None:
    """A flow deleted while it is being added is absent from a table published in between.

    The deletion finds no snoop table; the adder finds the new one and must not mirror the flow.
    """
    keys = interleavings.expected_keys(udp_connection)
    sender = interleavings.gated_sender(udp_connection)
    creator = child_process.GatedChild(lambda: _create_map_and_look_up(private_router, keys))
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    with (
        stop_at("flow_offload_free", cpu=TEST_CPU) as deletion,
        stop_at("synchronize_rcu", tgid=creator.pid) as publication,
        # Called once per packet; the third call follows the insertion in flow_offload_add().
        stop_at("__nf_ct_refresh_acct", cpu=HELD_CPU, skip=2) as addition,
    ):
        sender.start()
        addition.wait_until_held(busy_poll=True)
        conntrack.delete(udp_connection.tuple, private_router.namespace)
        deletion.wait_until_held(busy_poll=True)
        deletion.release()
        creator.start()
        publication.wait_until_held(busy_poll=True)
        addition.release()
        sender.join()
        publication.release()
    assert creator.join() == ([None, None], 0, 0)


@pytest.mark.clause("SN-3", "SN-6", "RT-1")
@pytest.mark.usefixtures("require_preempt_rcu", "flowmap_loaded")
def test_flow_deleted_before_table_is_listed_is_not_mirrored(
    private_router: Router, udp_connection: Connection, make_netns: MakeNetns
) -> None:
    """A flow deleted after a table's first grace period, before it is in the list, is not mirrored.

    Every deletion then sees the increased count of tables, and marks its flow for the adder.
    """
    keys = interleavings.expected_keys(udp_connection)
    sender = interleavings.gated_sender(udp_connection)
    creator = child_process.GatedChild(
        lambda: _create_map_and_look_up(private_router, keys), TEST_CPU
    )
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    with (
        stop_at("flow_offload_free", cpu=TEST_CPU) as deletion,
        stop_at("__nf_ct_refresh_acct", cpu=HELD_CPU, skip=2) as addition,
        ExitStack() as syncpoints,
    ):
        # Two syncpoints at one function would share a trampoline, in which no task may sleep.
        with stop_at("synchronize_rcu", tgid=creator.pid) as first_grace_period:
            creator.start()
            first_grace_period.wait_until_held(busy_poll=True)
            # After the grace period the creator takes the lock of the list.
            list_lock = syncpoints.enter_context(stop_at(SPIN_LOCK_BH_SYMBOL, tgid=creator.pid))
            first_grace_period.release()
        second_grace_period = syncpoints.enter_context(stop_at("synchronize_rcu", tgid=creator.pid))
        list_lock.wait_until_held(busy_poll=True)
        sender.start()
        addition.wait_until_held(busy_poll=True)
        conntrack.delete(udp_connection.tuple, private_router.namespace)
        deletion.wait_until_held(busy_poll=True)
        deletion.release()
        list_lock.release()
        second_grace_period.wait_until_held(busy_poll=True)
        addition.release()
        sender.join()
        second_grace_period.release()
    assert creator.join() == ([None, None], 0, 0)
