# SPDX-License-Identifier: GPL-2.0-only
"""A flow table that cannot have its last device: it was in the way of packets for a moment."""

import errno

import pytest

from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.kernel.syncpoints import FAR, NEAR, hold
from fixtures.guest.net import flowtable
from fixtures.guest.net.flowtable import INET
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")

FIRST = -10
"""The priority of a table that sees packets before the router's own does."""


def _create_in_vain(router: Router) -> None:
    devices = [router.inside.device, router.outside.device]
    second = flowtable.new_flowtable(INET, "late", "second", devices=devices, priority=FIRST)
    with refused(errno.EEXIST):
        flowtable.commit([second], router.namespace)


@pytest.mark.clause("SN-7", "SN-8", "RT-1")
def test_packet_is_in_a_flow_table_that_gets_only_one_of_its_devices(
    own_router: Router, talk: Connection
) -> None:
    first = flowtable.new_flowtable(INET, "late", "first", devices=[own_router.outside.device])
    flowtable.commit([flowtable.new_table(INET, "late"), first], own_router.namespace)
    sender = interleavings.adder(talk)
    creator = child_process.Waiting(lambda: _create_in_vain(own_router), NEAR)
    with (
        hold("nf_unregister_net_hook", task=creator.pid) as undoing,
        hold("nf_tables_abort", task=creator.pid) as undone,
        hold("nf_flow_offload_ip_hook", cpu=FAR) as packet,
    ):
        creator.begin()
        undoing.reached()
        sender.begin()
        packet.reached()
        undoing.release()
        # What the packet is in has to stay.
        interleavings.in_vain("the table to be gone", undone.somebody_came)
        packet.release()
        undone.reached()
        undone.release()
    sender.join()
    creator.join()
    names = {table.name for table in flowtable.flowtables(own_router.namespace)}
    assert "second" not in names
