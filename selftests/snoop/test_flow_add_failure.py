# SPDX-License-Identifier: GPL-2.0-only
"""A flow that its own table does not take: nobody hears of it, and nothing of it stays.

A table refuses a flow when it is full and cannot grow (test_cannot_grow.py).  Here the function
itself is made to fail, for each kind of flow.
"""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import function_override
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.fixtures import Connect, require_own_module
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, flow_of

MESSAGES = 4


@pytest.mark.clause("SN-2", "SN-8")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_flow_that_its_table_refuses_leaves_no_trace(
    own_router: Router, own_flowmap: int, own_connection: Connect, protocol: int, version: int
) -> None:
    require_own_module(function_override.MODULE)
    flowtable.create_snoop("spy", "all", own_router.namespace)
    with function_override.failing("flow_offload_add") as failures:
        talk = own_connection(protocol, version)
        for _ in range(MESSAGES):
            talk.exchange()
        # Each message but the first, as conntrack forgets that there was a flow.
        assert failures() > MESSAGES / 2
        entry = talk.entry()
        assert entry is not None
        assert not entry.offloaded
        keys = flow_of(own_router, entry).keys
        assert [bpf.found(own_flowmap, key) for key in keys] == [None, None]
        spy = flowtable.find("spy", "all", own_router.namespace)
        assert (spy.entries, spy.missed) == (0, 0)

    # The routes that the refused flows had are good for one that is taken.
    flow = talk.offloaded()
    assert [bpf.lookup(own_flowmap, key).dir for key in flow.keys] == [0, 1]
