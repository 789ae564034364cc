# SPDX-License-Identifier: GPL-2.0-only
"""A tuple that one source table serves while a second table adds it."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel.syncpoints import HELD_CPU, stop_at
from fixtures.guest.net import tc
from fixtures.guest.pytest_plugin.plugin_api import router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import act_ct_offload
from fixtures.guest.traffic.act_ct_offload import DSCP_CS1, OTHER_ZONE, ZONE
from fixtures.guest.traffic.connections import Connection

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")


@pytest.mark.clause("FM-6", "SN-10", "RT-1")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
def test_key_walk_during_insert_of_duplicate_tuple_returns_key_once(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """A key walk returns a tuple once while a second flow with it is being inserted.

    The second flow is in the hash table already, but not yet in the rbtree that the walk follows.
    """
    # One pair of sockets, two connections: conntrack zones separate equal tuples.
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    tc.add_act_ct(["r0", "r1"], OTHER_ZONE, private_router.namespace, dscp=DSCP_CS1)
    keys = act_ct_offload.wait_offloaded(udp_connection)
    udp_connection.set_dscp(DSCP_CS1)
    sender = child_process.GatedChild(
        lambda: len(act_ct_offload.wait_offloaded(udp_connection, OTHER_ZONE)), HELD_CPU
    )
    with ExitStack() as syncpoints:
        addition = syncpoints.enter_context(stop_at("__nf_flow_snoop_add", cpu=HELD_CPU))
        sender.start()
        addition.wait_until_held()
        # The insertion of each direction compares it with the existing flow's.
        second_insert = syncpoints.enter_context(
            stop_at("nf_flow_snoop_obj_cmpfn", cpu=HELD_CPU, skip=1)
        )
        addition.release()
        second_insert.wait_until_held()
        assert bpf.flowmap_entry_count(private_flowmap) == 1
        zones = [bpf.lookup(private_flowmap, key).ct_zone for key in keys]
        assert zones == [OTHER_ZONE, ZONE]
        assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == sorted(map(bytes, keys))
        second_insert.release()
    sender.join()
    assert bpf.flowmap_entry_count(private_flowmap) == 2
    assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == sorted(map(bytes, keys))
