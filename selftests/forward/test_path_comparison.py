# SPDX-License-Identifier: GPL-2.0-only
"""The same packets through four routers: what arrives is the same, octet for octet.

By the flow map, by the kernel's own lookup for XDP, by the flow table, and by the stack alone.
"""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fixtures.guest.bpf.libbpf import Object
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable, netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Connect, describe
from fixtures.guest.topology.client_router_server import TABLE, Plan, Router
from fixtures.guest.traffic import packet_headers, rx_capture, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection, send_frames
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PLANS = [Plan(), Plan(nat="masquerade"), Plan(nat="snat+dnat")]

_KFUNC = "xdp_kfunc_forward"
_NARROW = 1400
_HEADERS = 80  # as many octets as IPv6 and TCP with its time stamps need, and some
_LONG_AGO = 2000
_WORD = 1 << 32
_MARK = b"the same through all"
_PATIENT = {"ipv4/icmp_ratelimit": 0, "ipv6/icmp/ratelimit": 0}


def _volley(template: bytes) -> list[bytes]:
    """Variations of a packet that a router has to treat with care, each with a payload to know.

    Lengths odd and even, marks, TTLs to the last, no checksum, larger than the MTU.
    """
    made: list[Ether] = []

    def vary(change: Callable[[Ether], None], size: int = 100) -> None:
        packet = Ether(template)
        transport = packet[TCP if TCP in packet else UDP]
        if TCP in packet:  # what the server has already: the connection is not to notice
            transport.seq = (transport.seq - _LONG_AGO) % _WORD
        transport.payload = Raw(_MARK.ljust(size, bytes([len(made)])))
        for part in packet.iterpayloads():
            for field in ("len", "plen", "chksum"):
                if field in part.fields:
                    delattr(part, field)
        change(packet)
        made.append(packet)

    def marks(octet: int) -> Callable[[Ether], None]:
        def change(packet: Ether) -> None:
            if IP in packet:
                packet[IP].tos, packet[IP].id, packet[IP].flags = octet, octet << 8, "DF"
            else:
                packet[IPv6].tc, packet[IPv6].fl = octet, octet << 8

        return change

    def hops(number: int) -> Callable[[Ether], None]:
        def change(packet: Ether) -> None:
            if IP in packet:
                packet[IP].ttl = number
            else:
                packet[IPv6].hlim = number

        return change

    def unsummed(packet: Ether) -> None:
        packet[UDP].chksum = 0

    for size in (len(_MARK), 61, 100, 1001, _NARROW - _HEADERS):
        vary(lambda _: None, size)
    for octet in (0x00, 0x01, 0xB8, 0xFF):
        vary(marks(octet))
    for number in (255, 3, 2, 1):
        vary(hops(number))
    if UDP in made[0]:
        vary(unsummed)
    vary(marks(0), _NARROW)  # with its headers more than may leave
    return [bytes(packet) for packet in made]


def _complaint(frame: bytes) -> bytes:
    """What a router says of a packet that it did not forward, without its own IP header."""
    packet = Ether(frame)
    return bytes(packet[ICMP] if IP in packet else packet[IPv6].payload)


def _through(talk: Connection, frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What arrives at the server of frames that the client sends, and what comes back."""
    router = talk.router
    with (
        rx_capture.frames(router.server) as at_server,
        rx_capture.frames(router.client) as at_client,
    ):
        for number, data in enumerate(frames, start=1):
            send_frames(router.client, [data])
            wait_for(
                f"packet {number} to arrive, or to be refused",
                lambda: len(at_server(_MARK, 0)) + len(at_client(_MARK, 0)) == number,  # noqa: B023
            )
        _drain(talk)
        return at_server(_MARK, 0), [_complaint(frame) for frame in at_client(_MARK, 0)]


def _drain(talk: Connection) -> None:
    """Take from the sockets what a volley has left in them."""
    talk.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if talk.tuple.protocol == UDP_PROTOCOL:
        patience = talk.server.gettimeout()
        talk.server.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                talk.server.recv(1 << 16)
        talk.server.settimeout(patience)


def _sent(talk: Connection) -> bytes:
    """A packet that the client's socket has just sent."""
    with tx_capture.frames(talk.router.client.namespace) as sent:
        talk.exchange(tx_capture.PAYLOAD)
        return sent(talk.router.client.device, tx_capture.PAYLOAD)[-1]


@pytest.mark.clause("FM-3", "FM-4", "FM-12")
@pytest.mark.parametrize("own_router", PLANS, ids=describe, indirect=True)
@versions
@protocols
def test_four_routers_send_the_same(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    protocol: int,
    version: int,
) -> None:
    router = own_router
    narrow = [rtnetlink.mtu(router.outside.index, _NARROW)]
    netlink.transact(netlink.NETLINK_ROUTE, narrow, router.namespace)
    netns.set_sysctls(router.namespace, _PATIENT)
    seen: dict[str, tuple[list[bytes], list[bytes]]] = {}

    with ExitStack() as attached:
        forwarder = Forwarder(router, own_flowmap, attached)
        talk = own_connection(protocol, version)
        talk.offloaded()
        volley = _volley(_sent(talk))
        before = forwarder.fates()
        seen["flow map"] = _through(talk, volley)
        counted = forwarder.fates() - before
        assert counted[Fate.EXPIRES] == counted[Fate.TOO_LARGE] == 1
        assert counted[Fate.FORWARDED] >= len(volley) - 2

    with ExitStack() as attached:
        loaded = Object(_KFUNC, {})
        attached.callback(loaded.close)
        for port in (router.inside, router.outside):
            loaded.attach_xdp(_KFUNC, port.index, router.namespace, attached)
        talk.offloaded_anew()
        before_kfunc = loaded.counter(0)
        seen["kfunc"] = _through(talk, volley)
        assert loaded.counter(0) - before_kfunc >= len(volley) - 2

    talk.offloaded_anew()
    seen["flow table"] = _through(talk, volley)

    flowtable.drop_table(TABLE, router.namespace)
    wait_for("the flow to be the stack's", lambda: (e := talk.entry()) and not e.offloaded)
    seen["stack"] = _through(talk, volley)

    arrived, refused = seen["stack"]
    assert (len(arrived), len(refused)) == (len(volley) - 2, 2)
    assert [packet_headers.intact(frame) for frame in arrived].count(False) == (
        protocol == UDP_PROTOCOL
    )
    for name, (here, back) in seen.items():
        assert here == arrived, name
        assert back == refused, name
