# SPDX-License-Identifier: GPL-2.0-only
"""TCP segments that XDP passes to the stack still move the connection's window."""

import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fixtures.guest.net import netns, nftables
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, send_frames
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

_DATA = bytes(1000)
_SEQ_MODULO = 1 << 32


@pytest.mark.clause("FM-3.20", "SN-6.2")
@versions
def test_server_data_after_client_fin_stays_in_window(
    open_private_connection: OpenConnection, xdp_forwarder: XdpForwarder, version: int
) -> None:
    """After the client's FIN, which the stack forwarded, XDP accepts the server's ACKs."""
    conn = open_private_connection(IPPROTO_TCP, version)
    conn.wait_offloaded()
    before = xdp_forwarder.result_counts()
    conn.client.sendall(b"the last word")
    conn.client_fin()
    for _ in range(20):
        conn.server.sendall(_DATA)
        assert conn.client.recv(len(_DATA), socket.MSG_WAITALL) == _DATA
    assert not (xdp_forwarder.result_counts() - before)[ForwardResult.OUT_OF_WINDOW]


def _ipv4_fragments(segment: bytes) -> list[bytes]:
    """Split a frame's IPv4 packet in two; the first has the ports."""
    packet = Ether(segment)
    ip = packet[IP]
    ip.flags = 0
    del ip.len, ip.chksum
    return [bytes(Ether(src=packet.src, dst=packet.dst) / part) for part in fragment(ip, 64)]


def _ipv6_fragments(segment: bytes) -> list[bytes]:
    """Split a frame's IPv6 packet in two with fragment headers."""
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


def _ipv4_options(segment: bytes) -> list[bytes]:
    """Add IPv4 options to a frame's packet."""
    packet = Ether(segment)
    packet[IP].options = [IPOption_NOP()] * 4
    del packet[IP].ihl, packet[IP].len, packet[IP].chksum
    return [bytes(packet)]


def _ipv6_destination_options(segment: bytes) -> list[bytes]:
    """Add an IPv6 destination options header to a frame's packet."""
    packet = Ether(segment)
    ip = packet[IPv6]
    header = IPv6ExtHdrDestOpt(nh=ip.nh, options=[PadN(optdata=b"\0" * 4)])
    data = Ether(src=packet.src, dst=packet.dst) / IPv6(src=ip.src, dst=ip.dst, hlim=ip.hlim)
    return [bytes(data / header / bytes(ip.payload))]


DROP_TCP_INPUT = """
table inet drop_input {
  chain input {
    type filter hook input priority 0; policy accept;
    meta l4proto tcp drop
  }
}
"""
ENCODINGS = [
    (4, _ipv4_fragments),
    (4, _ipv4_options),
    (6, _ipv6_fragments),
    (6, _ipv6_destination_options),
]


@pytest.mark.clause("FM-3.20")
@pytest.mark.parametrize(
    ("version", "encode"),
    ENCODINGS,
    ids=["ipv4-fragments", "ipv4-options", "ipv6-fragments", "ipv6-destination-options"],
)
def test_ack_of_segment_passed_to_stack_stays_in_window(
    private_router: Router,
    open_private_connection: OpenConnection,
    xdp_forwarder: XdpForwarder,
    version: int,
    encode: Callable[[bytes], list[bytes]],
) -> None:
    """XDP accepts the server's ACK of a segment that only the stack could forward.

    The segment comes in a form that flowtables do not forward: fragments, IPv4 options or
    an IPv6 extension header.
    """
    # The crafted segment carries no valid TCP timestamp.
    netns.set_sysctls(private_router.client.namespace, {"ipv4/tcp_timestamps": 0})
    conn = open_private_connection(IPPROTO_TCP, version)
    conn.wait_offloaded()
    with tx_capture.capture_tx(private_router.client.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        template = Ether(sent(private_router.client.device, tx_capture.PAYLOAD)[-1])
    segment = template[TCP]
    segment.seq = (segment.seq + len(tx_capture.PAYLOAD)) % _SEQ_MODULO
    segment.ack = (segment.ack + len(tx_capture.PAYLOAD)) % _SEQ_MODULO  # the exchange's echo
    segment.payload = Raw(_DATA)
    for part in template.iterpayloads():
        for field in ("len", "plen", "chksum"):
            if field in part.fields:
                delattr(part, field)
    # The client's socket has not sent the crafted data and would answer its ACK.
    nftables.run(DROP_TCP_INPUT, private_router.client.namespace)
    before = xdp_forwarder.result_counts()
    send_frames(private_router.client, encode(bytes(template)))
    assert conn.server.recv(len(_DATA), socket.MSG_WAITALL) == _DATA
    with rx_capture.capture_rx(private_router.client) as arrived:
        conn.server.sendall(tx_capture.PAYLOAD)
        assert (
            Ether(arrived(tx_capture.PAYLOAD)[0])[TCP].ack
            == (segment.seq + len(_DATA)) % _SEQ_MODULO
        )
    assert not (xdp_forwarder.result_counts() - before)[ForwardResult.OUT_OF_WINDOW]
