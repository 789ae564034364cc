# SPDX-License-Identifier: GPL-2.0-only
"""Flow addition and deletion during a view's publication: no entry is doubled or stale.

A work item publishes the view; BPF_MAP_CREATE waits for it.
"""

from collections.abc import Sequence

import pytest

from fixtures.flowmap.uapi import Key
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

_WORKER = "kworker"
_WALK = "nf_flow_table_snoop_walk"
"""The walk over the existing flows, after the second grace period of a publication."""
_WALK_STEP = "nf_flow_index_join_one"
"""Called by the walk for each flow, in an RCU read-side section."""


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


@pytest.mark.clause("SN-3.2", "RT-1.1")
def test_flow_added_between_publish_and_initial_walk_is_mirrored_once(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """A flow added between the view's publication and its initial walk is mirrored once."""
    flow = interleavings.offload_and_flush(udp_connection, private_flowmap)
    creator = child_process.GatedChild(lambda: _create_map_and_look_up(private_router, flow.keys))
    with stop_at(_WALK, comm=_WORKER) as walk:
        creator.start()
        walk.wait_until_held()
        udp_connection.wait_offloaded()
        walk.release()
    assert creator.join() == ([0, 1], 2, 1)


@pytest.mark.clause("SN-3.1", "SN-3.2", "SN-2.2", "RT-1.1")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="split")], ids=router_config_id, indirect=True
)
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flows_added_behind_initial_walk_are_mirrored_once(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """Flows added to source tables that the initial walk has already passed are mirrored once.

    The walk is held at the only flow of the last source table, whichever that is.
    """
    kinds = ((IPPROTO_TCP, 4), (IPPROTO_UDP, 4), (IPPROTO_UDP, 6))  # one source table each
    early, late = (
        [open_private_connection(*kind, server_port=port) for kind in kinds]
        for port in (7001, 7002)
    )
    flows = [conn.wait_offloaded() for conn in (*early, *late)]
    for conn in late:
        conntrack.delete(conn.tuple, private_router.namespace)
    wait_for(
        "the deleted flows to be removed",
        lambda: bpf.flowmap_entry_count(private_flowmap) == len(early),
    )
    keys = [key for flow in flows for key in flow.keys]
    creator = child_process.GatedChild(lambda: _create_map_and_look_up(private_router, keys))
    # Conntrack forgets a deleted TCP connection, so UDP flows are added.
    added = late[1:]
    with stop_at(_WALK_STEP, comm=_WORKER, skip=len(kinds) - 1) as walk:
        creator.start()
        walk.wait_until_held()
        for conn in added:
            conn.wait_offloaded()
        walk.release()
    found = len(early) + len(added)
    directions: list[int | None] = [0, 1] * len(early) + [None, None] + [0, 1] * len(added)
    assert creator.join() == (directions, 2 * found, found)


@pytest.mark.clause("SN-3.3", "RT-1.1")
@pytest.mark.parametrize("stop_function", [_WALK, _WALK_STEP])
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
    with stop_at(stop_function, comm=_WORKER) as walk, stop_at("flow_offload_free") as deletion:
        creator.start()
        walk.wait_until_held()
        conntrack.flush(private_router.namespace)
        deletion.wait_until_held()
        deletion.release()
        walk.release()
    assert creator.join() == ([None, None], 0, 0)


@pytest.mark.clause("SN-3.3", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu", "flowmap_loaded")
def test_flow_deleted_during_add_is_absent_from_new_snoop_table(
    private_router: Router, udp_connection: Connection, make_netns: MakeNetns
) -> None:
    """A flow deleted while it is being added is absent from a view published in between.

    The deletion finds no view and does not mark the flow; so the publication has to wait for the
    adder before it lets adders see the view.
    """
    keys = interleavings.expected_keys(udp_connection)
    sender = interleavings.gated_sender(udp_connection)
    creator = child_process.GatedChild(lambda: _create_map_and_look_up(private_router, keys))
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    with (
        stop_at("flow_offload_free", cpu=TEST_CPU) as deletion,
        stop_at("synchronize_rcu", comm=_WORKER) as publication,
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


@pytest.mark.clause("SN-3.3", "RT-1.1")
@pytest.mark.usefixtures("require_preempt_rcu", "flowmap_loaded")
def test_flow_deleted_before_its_adder_sees_view_is_not_mirrored(
    private_router: Router, udp_connection: Connection, make_netns: MakeNetns
) -> None:
    """A flow deleted after a view's first grace period, before its adder sees it, is not mirrored.

    Every deletion then marks its flow for the adder.
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
        stop_at("synchronize_rcu", comm=_WORKER, skip=1) as second_grace_period,
    ):
        creator.start()
        second_grace_period.wait_until_held(busy_poll=True)
        sender.start()
        addition.wait_until_held(busy_poll=True)
        conntrack.delete(udp_connection.tuple, private_router.namespace)
        deletion.wait_until_held(busy_poll=True)
        deletion.release()
        addition.release()
        sender.join()
        second_grace_period.release()
    assert creator.join() == ([None, None], 0, 0)
