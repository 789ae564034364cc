# SPDX-License-Identifier: GPL-2.0-only
"""What flow tables do not take in is not in the map: other protocols, options, helpers."""

import socket
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.l2 import GRE, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Packet

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology.client_router_server import Port, Router
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, send_frames

_ROUNDS = 4


@dataclass(frozen=True)
class Talk:
    """What is above IPv4 in the packets of one connection, there and back."""

    there: Packet
    back: Packet | None
    options: tuple[Packet, ...] = ()


TALKS = {
    "icmp": Talk(ICMP(type=8, id=7), ICMP(type=0, id=7)),
    "sctp": Talk(
        SCTP(sport=40000, dport=7000) / SCTPChunkInit(init_tag=1),
        SCTP(sport=7000, dport=40000, tag=1) / SCTPChunkInitAck(init_tag=2),
    ),
    "gre": Talk(GRE(proto=0x0800), GRE(proto=0x0800)),
    "gre with a key": Talk(
        GRE(proto=0x0800, key_present=1, key=7), GRE(proto=0x0800, key_present=1, key=7)
    ),
    "ip options": Talk(
        UDP(sport=40000, dport=7000), UDP(sport=7000, dport=40000), options=(IPOption_NOP(),) * 4
    ),
    "no reply": Talk(UDP(sport=40000, dport=7000), None),
}


def _packet(sender: Port, first_hop: Port, receiver: Port, above: Packet, talk: Talk) -> bytes:
    internet = IP(src=sender.addresses[4], dst=receiver.addresses[4], options=list(talk.options))
    return bytes(Ether(src=sender.mac, dst=first_hop.mac) / internet / above)


@pytest.mark.clause("FM-5", "SN-2")
@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
def test_connection_that_no_table_takes_is_not_found(
    own_router: Router, own_flowmap: int, talk: Talk
) -> None:
    client, server = own_router.client, own_router.server
    inside, outside = own_router.inside, own_router.outside
    # Whatever the protocol is, it is offered.
    nftables.run("add rule inet fw forward ct state established flow add @ft", inside.namespace)
    there = _packet(client, inside, server, talk.there, talk)
    ends = [socket.inet_aton(port.addresses[4]) for port in (client, server)]
    forth, reverse = b"".join(ends), b"".join(reversed(ends))  # as in an IP header
    with tx_capture.frames(own_router.namespace) as sent:
        for done in range(1, _ROUNDS + 1):
            send_frames(client, [there])
            wait_for("the packet to leave", lambda: len(sent(outside.device, forth)) >= done)  # noqa: B023
            if talk.back is not None:
                back = _packet(server, outside, client, talk.back, talk)
                send_frames(server, [back])
                wait_for(
                    "the answer to leave",
                    lambda: len(sent(inside.device, reverse)) >= done,  # noqa: B023
                )

    tracked = conntrack.entries(own_router.namespace)
    answered = [entry for entry in tracked if entry.status & conntrack.IPS_SEEN_REPLY]
    assert tracked
    assert bool(answered) == (talk.back is not None)
    assert [entry for entry in tracked if entry.offloaded] == []
    assert list(bpf.keys(own_flowmap)) == []


@pytest.mark.clause("FM-5", "SN-2")
def test_connection_with_a_helper_is_not_found(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
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
        own_router.namespace,
    )
    helped = own_connection(TCP_PROTOCOL, 4, server_port=7021)
    other = own_connection(TCP_PROTOCOL, 4, server_port=7022)
    for _ in range(_ROUNDS):
        helped.exchange()
    flow = other.offloaded()
    entry = helped.entry()
    assert entry is not None
    assert not entry.offloaded
    assert sorted(map(bytes, bpf.keys(own_flowmap))) == sorted(map(bytes, flow.keys))
