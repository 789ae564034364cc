# SPDX-License-Identifier: GPL-2.0-only
"""What those pay who have no snoop table: no call of its code."""

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import ftrace
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.fixtures import Connect, Namespaces
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL

_MIRRORING = {"__nf_flow_snoop_add", "__nf_flow_snoop_del"}


@pytest.mark.clause("SN-11")
@pytest.mark.parametrize("spied", [False, True, None], ids=["elsewhere", "here", "gone"])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_snoop_code_runs_only_where_there_is_a_snoop_table(
    own_router: Router,
    own_connection: Connect,
    namespace: Namespaces,
    spied: bool | None,
    version: int,
) -> None:
    elsewhere = namespace("fm-else") if spied is False else own_router.namespace
    with ftrace.calls("nf_flow_snoop_destroy") as called:
        flowtable.create_snoop("spy", "all", elsewhere)
        if spied is None:
            flowtable.drop_table("spy", own_router.namespace)
            wait_for("the snoop table to go", lambda: called()["nf_flow_snoop_destroy"])

    with ftrace.calls("*nf_flow_snoop*", "flow_offload_*") as called:
        talk = own_connection(TCP_PROTOCOL, version)
        talk.offloaded()
        talk.exchange()
        flowtable.drop_table("fw", own_router.namespace)
        wait_for("the flow to be freed", lambda: called()["flow_offload_free"])
        seen = set(called())

    assert seen >= {"flow_offload_add", "flow_offload_lookup", "flow_offload_free"}
    mirroring = {name for name in seen if "snoop" in name}
    if spied:
        assert mirroring >= _MIRRORING
    else:
        assert mirroring == set()
