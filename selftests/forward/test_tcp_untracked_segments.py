# SPDX-License-Identifier: GPL-2.0-only
"""Octets that the program leaves to the stack belong to their connection's window all the same."""

import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fixtures.guest.net import netns, nftables
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, send_frames
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

_PIECE = bytes(1000)
_WORD = 1 << 32


@pytest.mark.clause("FM-3", "SN-6")
@versions
def test_half_closed_connection_goes_on(
    own_connection: Connect, forwarder: Forwarder, version: int
) -> None:
    """The client's FIN went up; what the server sends then acknowledges it."""
    talk = own_connection(TCP_PROTOCOL, version)
    talk.offloaded()
    before = forwarder.fates()
    talk.client.sendall(b"the last word")
    talk.finish()
    for _ in range(20):
        talk.server.sendall(_PIECE)
        assert talk.client.recv(len(_PIECE), socket.MSG_WAITALL) == _PIECE
    assert not (forwarder.fates() - before)[Fate.OUT_OF_WINDOW]


def _split(segment: bytes) -> list[bytes]:
    """A frame's IPv4 packet in two fragments, the first with the ports in it."""
    packet = Ether(segment)
    rest = packet[IP]
    rest.flags = 0
    del rest.len, rest.chksum
    return [bytes(Ether(src=packet.src, dst=packet.dst) / part) for part in fragment(rest, 64)]


def _split6(segment: bytes) -> list[bytes]:
    packet = Ether(segment)
    ip = packet[IPv6]
    payload = bytes(ip.payload)
    cut = 64
    return [
        bytes(
            Ether(src=packet.src, dst=packet.dst)
            / IPv6(src=ip.src, dst=ip.dst, hlim=ip.hlim)
            / IPv6ExtHdrFragment(nh=ip.nh, offset=start // 8, m=int(start == 0), id=77)
            / part
        )
        for start, part in ((0, payload[:cut]), (cut, payload[cut:]))
    ]


def _with_options(segment: bytes) -> list[bytes]:
    packet = Ether(segment)
    packet[IP].options = [IPOption_NOP()] * 4
    del packet[IP].ihl, packet[IP].len, packet[IP].chksum
    return [bytes(packet)]


def _with_extension(segment: bytes) -> list[bytes]:
    packet = Ether(segment)
    ip = packet[IPv6]
    header = IPv6ExtHdrDestOpt(nh=ip.nh, options=[PadN(optdata=b"\0" * 4)])
    data = Ether(src=packet.src, dst=packet.dst) / IPv6(src=ip.src, dst=ip.dst, hlim=ip.hlim)
    return [bytes(data / header / bytes(ip.payload))]


DEAF = """
table inet deaf {
  chain input {
    type filter hook input priority 0; policy accept;
    meta l4proto tcp drop
  }
}
"""
FORMS = [(4, _split), (4, _with_options), (6, _split6), (6, _with_extension)]


@pytest.mark.clause("FM-3", "FM-10")
@pytest.mark.parametrize(
    ("version", "form"), FORMS, ids=["fragments", "options", "fragments-ipv6", "extension-ipv6"]
)
def test_what_went_up_may_be_acknowledged(
    own_router: Router,
    own_connection: Connect,
    forwarder: Forwarder,
    version: int,
    form: Callable[[bytes], list[bytes]],
) -> None:
    """The client's next segment comes in a form that flow tables do not serve."""
    # A segment by hand has no time of its own.
    netns.set_sysctls(own_router.client.namespace, {"ipv4/tcp_timestamps": 0})
    talk = own_connection(TCP_PROTOCOL, version)
    talk.offloaded()
    with tx_capture.frames(own_router.client.namespace) as sent:
        talk.exchange(tx_capture.PAYLOAD)
        template = Ether(sent(own_router.client.device, tx_capture.PAYLOAD)[-1])
    segment = template[TCP]
    segment.seq = (segment.seq + len(tx_capture.PAYLOAD)) % _WORD
    segment.ack = (segment.ack + len(tx_capture.PAYLOAD)) % _WORD  # the exchange's echo
    segment.payload = Raw(_PIECE)
    for part in template.iterpayloads():
        for field in ("len", "plen", "chksum"):
            if field in part.fields:
                delattr(part, field)
    # Its socket has not sent that, and would say so.
    nftables.run(DEAF, own_router.client.namespace)
    before = forwarder.fates()
    send_frames(own_router.client, form(bytes(template)))
    assert talk.server.recv(len(_PIECE), socket.MSG_WAITALL) == _PIECE
    with rx_capture.frames(own_router.client) as arrived:
        talk.server.sendall(tx_capture.PAYLOAD)
        assert Ether(arrived(tx_capture.PAYLOAD)[0])[TCP].ack == (segment.seq + len(_PIECE)) % _WORD
    assert not (forwarder.fates() - before)[Fate.OUT_OF_WINDOW]
