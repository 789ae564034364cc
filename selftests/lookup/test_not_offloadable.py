# SPDX-License-Identifier: GPL-2.0-only
"""Connections that flowtables do not offload are not in the map; GRE is in test_gre.py."""

import socket
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Packet

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Interface, Router
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, send_frames

_ROUNDS = 4


@dataclass(frozen=True)
class Packets:
    """IPv4 payloads of one connection: request, reply (if any) and IPv4 options."""

    request: Packet
    reply: Packet | None
    options: tuple[Packet, ...] = ()


NOT_OFFLOADABLE = {
    "icmp": Packets(ICMP(type=8, id=7), ICMP(type=0, id=7)),
    "sctp": Packets(
        SCTP(sport=20000, dport=7000) / SCTPChunkInit(init_tag=1),
        SCTP(sport=7000, dport=20000, tag=1) / SCTPChunkInitAck(init_tag=2),
    ),
    "ip-options": Packets(
        UDP(sport=20000, dport=7000), UDP(sport=7000, dport=20000), options=(IPOption_NOP(),) * 4
    ),
    "no-reply": Packets(UDP(sport=20000, dport=7000), None),
}


def _build_frame(
    sender: Interface, first_hop: Interface, receiver: Interface, payload: Packet, packets: Packets
) -> bytes:
    """Build a frame from sender to receiver by way of the router."""
    internet = IP(src=sender.addresses[4], dst=receiver.addresses[4], options=list(packets.options))
    return bytes(Ether(src=sender.mac, dst=first_hop.mac) / internet / payload)


@pytest.mark.clause("SN-2.5")
@pytest.mark.parametrize("packets", NOT_OFFLOADABLE.values(), ids=NOT_OFFLOADABLE)
def test_connection_not_offloadable_is_not_in_map(
    private_router: Router, private_flowmap: int, packets: Packets
) -> None:
    """Connections that the flowtable refuses stay with conntrack and are not in the map."""
    client, server = private_router.client, private_router.server
    lan, wan = private_router.lan, private_router.wan
    # Offer connections of every protocol to the flowtable.
    nftables.run("add rule inet fw forward ct state established flow add @ft", lan.namespace)
    request_frame = _build_frame(client, lan, server, packets.request, packets)
    addresses = [socket.inet_aton(port.addresses[4]) for port in (client, server)]
    to_server, to_client = b"".join(addresses), b"".join(reversed(addresses))  # as in IPv4
    with tx_capture.capture_tx(private_router.namespace) as sent:
        for sends in range(1, _ROUNDS + 1):
            send_frames(client, [request_frame])
            wait_for("the request to leave", lambda: len(sent(wan.device, to_server)) >= sends)  # noqa: B023
            if packets.reply is not None:
                reply_frame = _build_frame(server, wan, client, packets.reply, packets)
                send_frames(server, [reply_frame])
                wait_for(
                    "the reply to leave",
                    lambda: len(sent(lan.device, to_client)) >= sends,  # noqa: B023
                )

    tracked = conntrack.entries(private_router.namespace)
    replied = [entry for entry in tracked if entry.status & conntrack.IPS_SEEN_REPLY]
    assert tracked
    assert bool(replied) == (packets.reply is not None)
    assert [entry for entry in tracked if entry.offloaded] == []
    assert list(bpf.iterate_keys(private_flowmap)) == []


@pytest.mark.clause("SN-2.5")
def test_connection_with_ct_helper_is_not_in_map(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """A connection with a conntrack helper is not in the map; one without a helper is."""
    nftables.run(
        """
        table inet fw {
            ct helper watched { type "ftp" protocol tcp; }
            chain helpers {
                type filter hook prerouting priority 0;
                tcp dport 7021 ct helper set "watched"
            }
        }
        """,
        private_router.namespace,
    )
    with_helper = open_private_connection(IPPROTO_TCP, 4, server_port=7021)
    without_helper = open_private_connection(IPPROTO_TCP, 4, server_port=7022)
    for _ in range(_ROUNDS):
        with_helper.exchange()
    flow = without_helper.wait_offloaded()
    entry = with_helper.conntrack_entry()
    assert entry is not None
    assert not entry.offloaded
    assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == sorted(map(bytes, flow.keys))
