# SPDX-License-Identifier: GPL-2.0-only
"""A SYN on a closing connection: the flow table tears the flow down at that packet."""

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe, MapReaders
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, build_frame, send_frames


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("SN-6.1", "SN-6.2", "FM-3.10")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("opener", ["client", "server"])
def test_closing_flow_after_reopening_syn_is_miss(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    version: int,
    opener: str,
) -> None:
    """A closing flow is found until a SYN reopens the connection, and is a miss from then on."""
    conn = open_private_connection(IPPROTO_TCP, version)
    flow = conn.wait_offloaded()
    readers = MapReaders(
        (private_flowmap,),
        LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_xdp"), "by_xdp"),
    )
    assert not any(bpf.lookup(private_flowmap, key).flags & uapi.F_CLOSING for key in flow.keys)
    conn.client_fin()
    assert conn.server.recv(1) == b""
    # The program's lookups refresh the flow, which does not clear its closing state.
    readers.assert_hit(flow)
    closing = [bpf.lookup(private_flowmap, key).flags & uapi.F_CLOSING for key in flow.keys]
    assert closing == [uapi.F_CLOSING] * 2

    if opener == "client":
        sender, receiver, side = private_router.client, private_router.lan, conn.tuple
    else:
        sender, receiver, side = private_router.server, private_router.wan, conn.tuple.reversed()
    send_frames(sender, [build_frame(sender, receiver, side, payload=b"", flags="S")])
    # The entry stays in the tables until garbage collection removes it.
    assert [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys] == [None, None]
    readers.assert_miss(flow)
    ct_entry = conn.conntrack_entry()
    assert ct_entry is None or not ct_entry.offloaded
