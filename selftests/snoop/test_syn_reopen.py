# SPDX-License-Identifier: GPL-2.0-only
"""A SYN on a closing connection: the flow table tears the flow down at that packet."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker, Readers
from fixtures.guest.pytest_plugin.plugin_api import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, frame, send_frames


@pytest.mark.clause("SN-6", "SN-5", "FM-10")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("opener", ["client", "server"])
def test_flow_is_missed_once_a_syn_reopens_its_connection(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
    version: int,
    opener: str,
) -> None:
    """A closing flow is found until a SYN reopens the connection, and is a miss from then on."""
    conn = own_connection(TCP_PROTOCOL, version)
    flow = conn.offloaded()
    readers = Readers((own_flowmap,), Asker(load("lookup_probe", own_flowmap, "by_xdp"), "by_xdp"))
    conn.finish()
    assert conn.server.recv(1) == b""
    # The program's lookups refresh the flow, which does not clear its closing state.
    readers.expect_found(flow)

    if opener == "client":
        sender, receiver, side = own_router.client, own_router.inside, conn.tuple
    else:
        sender, receiver, side = own_router.server, own_router.outside, conn.tuple.reversed()
    send_frames(sender, [frame(sender, receiver, side, payload=b"", flags="S")])
    # The entry stays in the tables until garbage collection removes it.
    assert [bpf.found(own_flowmap, key) for key in flow.keys] == [None, None]
    readers.expect_missed(flow)
    ct_entry = conn.entry()
    assert ct_entry is None or not ct_entry.offloaded
