# SPDX-License-Identifier: GPL-2.0-only
"""A SYN on a connection that is closing: the flow table gives the flow up at that packet."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker, Readers
from fixtures.guest.pytest_plugin.fixtures import Connect, Load
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
    talk = own_connection(TCP_PROTOCOL, version)
    flow = talk.offloaded()
    readers = Readers((own_flowmap,), Asker(load("lookup_probe", own_flowmap, "by_xdp"), "by_xdp"))
    talk.finish()
    assert talk.server.recv(1) == b""
    # A program forwards another packet, which does not take the FIN back.
    readers.expect_found(flow)

    if opener == "client":
        sender, receiver, side = own_router.client, own_router.inside, talk.tuple
    else:
        sender, receiver, side = own_router.server, own_router.outside, talk.tuple.reversed()
    send_frames(sender, [frame(sender, receiver, side, payload=b"", flags="S")])
    # The entry is in the tables until garbage collection comes round.
    assert [bpf.found(own_flowmap, key) for key in flow.keys] == [None, None]
    readers.expect_missed(flow)
    entry = talk.entry()
    assert entry is None or not entry.offloaded
