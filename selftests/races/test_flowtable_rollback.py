# SPDX-License-Identifier: GPL-2.0-only
"""Rollback of a flowtable whose last device is refused while a packet is in its hook."""

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

HOOK_PRIORITY = -10
"""Hook priority that puts the flowtable before the router's own."""


def _create_refused_flowtable(router: Router) -> None:
    """Create a flowtable on two devices; the second is refused with EEXIST."""
    devices = [router.inside.device, router.outside.device]
    second = flowtable.new_flowtable(
        INET, "late", "second", devices=devices, priority=HOOK_PRIORITY
    )
    with refused(errno.EEXIST):
        flowtable.commit([second], router.namespace)


@pytest.mark.clause("SN-7", "SN-8", "RT-1")
def test_packet_is_in_a_flow_table_that_gets_only_one_of_its_devices(
    own_router: Router, talk: Connection
) -> None:
    """The rollback of a refused flowtable waits for a packet that is in its first device's hook."""
    first = flowtable.new_flowtable(INET, "late", "first", devices=[own_router.outside.device])
    flowtable.commit([flowtable.new_table(INET, "late"), first], own_router.namespace)
    sender = interleavings.adder(talk)
    creator = child_process.Waiting(lambda: _create_refused_flowtable(own_router), NEAR)
    with (
        hold("nf_unregister_net_hook", task=creator.pid) as unregister,
        hold("nf_tables_abort", task=creator.pid) as abort,
        hold("nf_flow_offload_ip_hook", cpu=FAR) as packet,
    ):
        creator.begin()
        unregister.reached()
        sender.begin()
        packet.reached()
        unregister.release()
        # The flowtable must not be freed while the packet is in its hook.
        interleavings.in_vain("the transaction to be aborted", abort.somebody_came)
        packet.release()
        abort.reached()
        abort.release()
    sender.join()
    creator.join()
    names = {table.name for table in flowtable.flowtables(own_router.namespace)}
    assert "second" not in names
