# SPDX-License-Identifier: GPL-2.0-only
"""Cost without a snoop table in the netns: no call of snoop code."""

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import ftrace
from fixtures.guest.net import conntrack, flowtable
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

_SNOOP_FUNCTIONS = {"__nf_flow_snoop_add", "__nf_flow_snoop_del"}


@pytest.mark.clause("SN-11.1", "SN-11.2")
@pytest.mark.parametrize(
    "snooped",
    [False, True, None],
    ids=["snoop-in-other-netns", "snoop-in-netns", "snoop-deleted"],
)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_snoop_code_runs_only_in_netns_with_snoop_table(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_netns: MakeNetns,
    snooped: bool | None,
    version: int,
) -> None:
    """Adding and deleting a flow calls snoop code only while its netns has a snoop table."""
    snoop_ns = make_netns("fm-else") if snooped is False else private_router.namespace
    if snooped is not False:
        open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    with ftrace.count_calls("nf_flow_snoop_unregister", "flow_offload_free") as called:
        flowtable.create_snoop_table("spy", "all", snoop_ns)
        if snooped is not False:
            wait_for(
                "the snoop table to be published",
                lambda: flowtable.snoop_counters("spy", "all", snoop_ns) == (1, 0),
            )
        if snooped is None:
            flowtable.drop_table("spy", private_router.namespace)
            wait_for(
                "the snoop table to be unregistered", lambda: called()["nf_flow_snoop_unregister"]
            )
            conntrack.flush(private_router.namespace)
            wait_for("the flow to be freed", lambda: called()["flow_offload_free"])

    with ftrace.count_calls("*nf_flow_snoop*", "flow_offload_*") as called:
        conn = open_private_connection(IPPROTO_TCP, version)
        conn.wait_offloaded()
        conn.exchange()
        flowtable.drop_table("fw", private_router.namespace)
        wait_for("the flow to be freed", lambda: called()["flow_offload_free"])
        seen = set(called())

    assert seen >= {"flow_offload_add", "flow_offload_lookup", "flow_offload_free"}
    snoop_calls = {name for name in seen if "snoop" in name}
    if snooped:
        assert snoop_calls >= _SNOOP_FUNCTIONS
    else:
        assert snoop_calls == set()
