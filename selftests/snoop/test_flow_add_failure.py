# SPDX-License-Identifier: GPL-2.0-only
"""Flows that their source table refuses: not mirrored, and nothing is left of them.

A full table that cannot grow refuses flows too (test_rhashtable_enomem.py).  Here the suite's
module makes flow_offload_add() fail, for each kind of flow.
"""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import function_override
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, require_suite_module
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, flow_from_conntrack

EXCHANGES = 4


@pytest.mark.clause("SN-2.5")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_flow_refused_by_source_table_is_not_mirrored(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    protocol: int,
    version: int,
) -> None:
    """A flow whose flow_offload_add() fails is not mirrored; offloaded later, it is."""
    require_suite_module(function_override.MODULE)
    flowtable.create_snoop_table("spy", "all", private_router.namespace)
    with function_override.fail_function("flow_offload_add") as failure_count:
        conn = open_private_connection(protocol, version)
        for _ in range(EXCHANGES):
            conn.exchange()
        # Every exchange but the first tries again: the failure clears IPS_OFFLOAD.
        assert failure_count() > EXCHANGES / 2
        ct_entry = conn.conntrack_entry()
        assert ct_entry is not None
        assert not ct_entry.offloaded
        keys = flow_from_conntrack(private_router, ct_entry).keys
        assert [bpf.lookup_or_none(private_flowmap, key) for key in keys] == [None, None]
        spy = flowtable.get_flowtable("spy", "all", private_router.namespace)
        assert (spy.entries, spy.missed) == (0, 0)

    # The routes of the refused flows are still valid for a flow that is accepted.
    flow = conn.wait_offloaded()
    assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]
    wait_for(
        "the snoop table to have the flow",
        lambda: flowtable.snoop_counters("spy", "all", private_router.namespace) == (1, 0),
    )
