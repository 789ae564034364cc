# SPDX-License-Identifier: GPL-2.0-only
"""Rollback of a flowtable whose last device is refused while a packet is in its hook."""

import errno

import pytest

from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import flowtable
from fixtures.guest.net.flowtable import INET
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import Connection
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

HOOK_PRIORITY = -10
"""Hook priority that puts the flowtable before the router's own."""


def _create_refused_flowtable(router: Router) -> None:
    """Create a flowtable on two devices; the second is refused with EEXIST."""
    devices = [router.lan.device, router.wan.device]
    second = flowtable.new_flowtable(
        INET, "late", "second", devices=devices, priority=HOOK_PRIORITY
    )
    with expect_errno(errno.EEXIST):
        flowtable.commit_batch([second], router.namespace)


@pytest.mark.clause("RT-1.1")
def test_flowtable_rollback_waits_for_packet_in_hook(
    private_router: Router, udp_connection: Connection
) -> None:
    """The rollback of a refused flowtable waits for a packet that is in its first device's hook."""
    first = flowtable.new_flowtable(INET, "late", "first", devices=[private_router.wan.device])
    flowtable.commit_batch([flowtable.new_table(INET, "late"), first], private_router.namespace)
    sender = interleavings.gated_sender(udp_connection)
    creator = child_process.GatedChild(lambda: _create_refused_flowtable(private_router), TEST_CPU)
    with (
        stop_at("nf_unregister_net_hook", tgid=creator.pid) as unregister,
        stop_at("nf_tables_abort", tgid=creator.pid) as abort,
        stop_at("nf_flow_offload_ip_hook", cpu=HELD_CPU) as packet,
    ):
        creator.start()
        unregister.wait_until_held()
        sender.start()
        packet.wait_until_held()
        unregister.release()
        # The flowtable must not be freed while the packet is in its hook.
        interleavings.assert_waits(creator.pid, "synchronize_rcu", abort.hit)
        packet.release()
        abort.wait_until_held()
        abort.release()
    sender.join()
    creator.join()
    names = {table.name for table in flowtable.list_flowtables(private_router.namespace)}
    assert "second" not in names
