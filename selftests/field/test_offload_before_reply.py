# SPDX-License-Identifier: GPL-2.0-only
"""Rulesets that offload connections before any reply: ``flow add`` without ``ct state``."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables
from fixtures.guest.net.conntrack import Tuple
from fixtures.guest.pytest_plugin.plugin_api import router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.traffic import headers_from_value, tx_capture
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    build_frame,
    connect,
    send_frames,
)
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

masquerading = pytest.mark.parametrize(
    "private_router",
    [RouterConfig(tables="none", nat="masquerade")],
    ids=router_config_id,
    indirect=True,
)
_REPLY_SEEN = conntrack.IPS_SEEN_REPLY | conntrack.IPS_ASSURED
_ROUNDS = 3


def _offload_every_packet(router: Router) -> None:
    """Add a flowtable and a rule that offloads any UDP or TCP packet."""
    nftables.run(
        """
        table inet fast {
            flowtable ft { hook ingress priority 0; devices = { r0, r1 }; }
            chain forward {
                type filter hook forward priority 0; policy accept;
                meta l4proto { tcp, udp } flow add @ft
            }
        }
        """,
        router.namespace,
    )


def _send_to_server(conn: Connection, payload: bytes) -> tuple[str, int]:
    """Send a datagram from the client; return the source that the server sees."""
    conn.client.send(payload)
    received, peer = conn.server.recvfrom(len(payload))
    assert received == payload
    return str(peer[0]), int(peer[1])


def _entry(conn: Connection) -> conntrack.ConntrackEntry:
    entry = conn.conntrack_entry()
    assert entry is not None
    return entry


@pytest.mark.clause("FM-3.20", "FM-4.1", "SN-5.2", "FM-12.1")
@masquerading
@pytest.mark.parametrize("path", ["flowtable", "xdp"])
def test_udp_flow_without_reply_has_complete_reply_value(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, path: str
) -> None:
    """A UDP flow without a reply has both keys, and replies leave as its reply value says.

    ::

        client --- r0 [router, masquerade] r1 --- server        devices = { r0, r1 }

    The client's second packet is offloaded.  Replies that the flowtable or an XDP program
    forwards do not pass conntrack, so the connection never becomes replied or assured.
    """
    router = private_router
    forwarder = XdpForwarder(router, private_flowmap, cleanup) if path == "xdp" else None
    _offload_every_packet(router)
    inside, outside = port_of(router.lan), port_of(router.wan)
    flows = []
    for version in (4, 6):
        conn = connect(router, IPPROTO_UDP, version, cleanup)
        _send_to_server(conn, b"the first packet confirms the connection")
        assert not _entry(conn).offloaded
        peer = _send_to_server(conn, b"the second is offloaded")
        entry = _entry(conn)
        assert (entry.offloaded, entry.status & _REPLY_SEEN) == (True, 0)
        flow = oracle.flow_of_entry(entry, inside, outside)
        flows.append(flow)

        to_server, to_client = (bpf.lookup(private_flowmap, key) for key in flow.keys)
        assert (to_server.dir, to_client.dir) == (0, 1)
        assert (to_client.oifindex, to_client.mtu) == (inside.ifindex, 1500)
        headers = headers_from_value.headers_from_value(to_client, flow.reply.l3proto)
        assert headers == headers_from_value.Headers(
            router.lan.mac,
            router.client.mac,
            (),
            None,
            (entry.original.destination, entry.original.destination_port),
            (entry.original.source, entry.original.source_port),
        )

        with tx_capture.capture_tx(router.namespace) as sent:
            before = forwarder.result_counts() if forwarder else None
            for _ in range(_ROUNDS):
                conn.server.sendto(tx_capture.PAYLOAD, peer)
                assert conn.client.recv(1 << 16) == tx_capture.PAYLOAD
                _send_to_server(conn, b"and there")
            if forwarder and before is not None:
                forwarded = forwarder.result_counts() - before
                assert forwarded == {ForwardResult.FORWARDED: 2 * _ROUNDS}
            else:
                seen = set(
                    map(
                        headers_from_value.headers_from_frame,
                        sent(inside.device, tx_capture.PAYLOAD),
                    )
                )
                assert seen == {headers}
        after = _entry(conn)
        assert (after.offloaded, after.status) == (True, entry.status)
        assert after.ct_id == bpf.lookup(private_flowmap, flow.reply).ct_id
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)

    for flow in flows:
        conntrack.delete(flow.entry.original, router.namespace)
        assert [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys] == [None, None]


@pytest.mark.clause("SN-2.5", "FM-12.1")
@masquerading
def test_tcp_flow_is_not_offloaded_before_handshake(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A SYN without an answer is not offloaded, however often it is sent; a handshake is.

    ::

        client --- r0 [router, masquerade] r1 --- server (port 7009 drops SYN)
    """
    router = private_router
    _offload_every_packet(router)
    nftables.run(
        """
        table inet silent {
            chain in { type filter hook input priority 0; tcp dport 7009 drop; }
        }
        """,
        router.server.namespace,
    )
    inside, outside = port_of(router.lan), port_of(router.wan)
    for version in (4, 6):
        unanswered = Tuple(
            IPPROTO_TCP,
            router.client.addresses[version],
            router.server.addresses[version],
            40009,
            7009,
        )
        syn = build_frame(router.client, router.lan, unanswered, flags="S", payload=b"")
        for _ in range(_ROUNDS):
            send_frames(router.client, [syn])
        wait_for(
            "the SYN to be tracked",
            lambda: conntrack.find(unanswered, router.namespace) is not None,  # noqa: B023
        )
        assert list(bpf.iterate_keys(private_flowmap)) == []
        conn = connect(router, IPPROTO_TCP, version, cleanup)
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
        oracle.assert_same_flows(
            private_flowmap,
            router.namespace,
            [oracle.flow_of_entry(_entry(conn), inside, outside)],
        )
        conntrack.flush(router.namespace)
