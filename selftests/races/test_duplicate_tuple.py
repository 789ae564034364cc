# SPDX-License-Identifier: GPL-2.0-only
"""A tuple that one source table serves while a second table adds it."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel.syncpoints import FAR, hold
from fixtures.guest.net import tc
from fixtures.guest.pytest_plugin.plugin_api import describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import act_ct
from fixtures.guest.traffic.act_ct import CS1, OTHER_ZONE, ZONE
from fixtures.guest.traffic.connections import Connection

pytestmark = pytest.mark.usefixtures("near")


@pytest.mark.clause("FM-6", "SN-10", "RT-1")
@pytest.mark.parametrize("own_router", [Plan(tables="none")], ids=describe, indirect=True)
def test_walk_shows_a_tuple_of_which_another_flow_is_half_in(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """A key walk returns a tuple once while a second flow with it is being inserted.

    The second flow is in the hash table already, but not yet in the rbtree that the walk follows.
    """
    # One pair of sockets, two connections: conntrack zones separate equal tuples.
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    tc.offload(["r0", "r1"], OTHER_ZONE, own_router.namespace, dscp=CS1)
    keys = act_ct.offloaded(talk)
    talk.mark(CS1)
    sender = child_process.Waiting(lambda: len(act_ct.offloaded(talk, OTHER_ZONE)), FAR)
    with ExitStack() as syncpoints:
        addition = syncpoints.enter_context(hold("__nf_flow_snoop_add", cpu=FAR))
        sender.begin()
        addition.reached()
        # The insertion of each direction compares it with the existing flow's.
        second_insert = syncpoints.enter_context(hold("nf_flow_snoop_obj_cmpfn", cpu=FAR, skip=1))
        addition.release()
        second_insert.reached()
        assert bpf.entries(own_flowmap) == 1
        zones = [bpf.lookup(own_flowmap, key).ct_zone for key in keys]
        assert zones == [OTHER_ZONE, ZONE]
        assert sorted(map(bytes, bpf.keys(own_flowmap))) == sorted(map(bytes, keys))
        second_insert.release()
    sender.join()
    assert bpf.entries(own_flowmap) == 2
    assert sorted(map(bytes, bpf.keys(own_flowmap))) == sorted(map(bytes, keys))
