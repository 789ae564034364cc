# SPDX-License-Identifier: GPL-2.0-only
"""Packets that the XDP forwarder passes to the stack.

It counts each under its reason, and the stack handles the packet as usual.
"""

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.core.expect_errno import refused
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import Connect
from fixtures.guest.topology import ipip, ipsec
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection, connect
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

_SMALL_MTU = 1400
_TTL_OPTION = {
    4: (socket.IPPROTO_IP, socket.IP_TTL),
    6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
_MTU_DISCOVER = {  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    4: (socket.IPPROTO_IP, 10),
    6: (socket.IPPROTO_IPV6, 23),
}
_PMTUDISC_DO, _PMTUDISC_DONT = 2, 0
_IP_OPTION_NOPS = bytes([1, 1, 1, 1])


CounterDelta = Callable[[Fate], int]
"""How often a forwarding result has been counted since the start."""


@pytest.fixture
def rise(forwarder: Forwarder) -> Callable[[], CounterDelta]:
    """Give a function that starts counting the forwarder's results."""

    def start() -> CounterDelta:
        before = forwarder.fates()
        return lambda fate: forwarder.fates()[fate] - before[fate]

    return start


@pytest.mark.clause("FM-4", "FM-5")
def test_first_packets_go_up(own_connection: Connect, rise: Callable[[], CounterDelta]) -> None:
    """Packets before the offload have no flow and are passed to the stack."""
    delta = rise()
    own_connection(UDP_PROTOCOL, 4).exchange()
    assert delta(Fate.NO_FLOW) == 2
    assert delta(Fate.FORWARDED) == 0


@pytest.mark.clause("FM-4")
@versions
def test_fragments_go_up(
    own_connection: Connect, rise: Callable[[], CounterDelta], version: int
) -> None:
    """IP fragments of an offloaded connection are passed to the stack."""
    conn = own_connection(UDP_PROTOCOL, version)
    conn.offloaded()
    level, option = _MTU_DISCOVER[version]
    conn.client.setsockopt(level, option, _PMTUDISC_DONT)
    delta = rise()
    long = tx_capture.PAYLOAD.ljust(4000)
    conn.client.send(long)
    assert conn.server.recv(1 << 16) == long
    if version == 4:
        assert delta(Fate.FRAGMENT) == 3
    else:
        # XDP sees the fragment header, not UDP. Neighbour discovery counts here, too, at any
        # time: hence no exact count.
        assert delta(Fate.NOT_TCP_OR_UDP) >= 3
    assert delta(Fate.FORWARDED) == 0


@pytest.mark.clause("FM-4")
def test_options_go_up(own_connection: Connect, rise: Callable[[], CounterDelta]) -> None:
    """A packet with IPv4 options is passed to the stack."""
    conn = own_connection(UDP_PROTOCOL, 4)
    conn.offloaded()
    conn.client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _IP_OPTION_NOPS)
    delta = rise()
    conn.client.send(tx_capture.PAYLOAD)
    assert conn.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert delta(Fate.OPTIONS) == 1


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_last_hop_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], CounterDelta], version: int
) -> None:
    """A packet with TTL or hop limit 1 is passed to the stack, which sends time exceeded."""
    conn = own_connection(UDP_PROTOCOL, version)
    conn.offloaded()
    conn.client.setsockopt(*_TTL_OPTION[version], 1)
    delta = rise()
    with (
        rx_capture.frames(own_router.server) as at_server,
        rx_capture.frames(own_router.client) as at_client,
    ):
        conn.client.send(tx_capture.PAYLOAD)
        # The stack's ICMP error quotes the packet.
        assert at_client(tx_capture.PAYLOAD)
        assert not at_server(tx_capture.PAYLOAD, 0)
    assert delta(Fate.EXPIRES) == 1


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_packet_larger_than_the_mtu_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], CounterDelta], version: int
) -> None:
    """A packet above the output MTU is passed to the stack, which sends packet too big."""
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.mtu(own_router.outside.index, _SMALL_MTU)],
        own_router.namespace,
    )
    conn = own_connection(UDP_PROTOCOL, version)
    conn.offloaded()
    level, option = _MTU_DISCOVER[version]
    conn.client.setsockopt(level, option, _PMTUDISC_DO)
    header = {4: 28, 6: 48}[version]
    delta = rise()
    largest = tx_capture.PAYLOAD.ljust(_SMALL_MTU - header)
    conn.client.send(largest)
    assert conn.server.recv(1 << 16) == largest
    assert (delta(Fate.TOO_LARGE), delta(Fate.FORWARDED)) == (0, 1)
    conn.client.send(largest + b"!")
    assert delta(Fate.TOO_LARGE) == 1
    # The stack's ICMP error: packet too big.
    with refused(errno.EMSGSIZE):
        conn.client.recv(1)


def _connection_ended(sock: socket.socket) -> bool:
    """Return whether a socket reads end of file or a reset."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.clause("FM-4", "SN-6")
@pytest.mark.parametrize(
    "end",
    [Connection.finish, Connection.reset, Connection.server_reset],
    ids=["client-fin", "client-rst", "server-rst"],
)
def test_end_of_a_connection_goes_up(
    own_connection: Connect, rise: Callable[[], CounterDelta], end: Callable[[Connection], None]
) -> None:
    """FIN and RST segments are passed to the stack and reach the peer."""
    conn = own_connection(TCP_PROTOCOL, 4)
    conn.offloaded()
    delta = rise()
    end(conn)
    assert _connection_ended(conn.client if end is Connection.server_reset else conn.server)
    assert delta(Fate.CONTROL) == 1
    assert delta(Fate.OUT_OF_WINDOW) == 0


@pytest.mark.clause("FM-3")
@versions
def test_unknown_neighbour_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], CounterDelta], version: int
) -> None:
    """A packet without a neighbour entry for its next hop is passed to the stack.

    There the flowtable takes it; in 7.3 it sends it to MAC address zero (docs/findings.md).
    """
    conn = own_connection(UDP_PROTOCOL, version)
    conn.offloaded()
    wan, host = own_router.outside, own_router.server
    address = host.addresses[version]
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.forget(wan.index, address)], wan.namespace)
    delta = rise()
    conn.client.send(tx_capture.PAYLOAD)
    assert (delta(Fate.NO_NEIGHBOUR), delta(Fate.FORWARDED)) == (1, 0)

    known = rtnetlink.neighbour(wan.index, address, host.mac)
    netlink.transact(netlink.NETLINK_ROUTE, [known], wan.namespace)
    conn.exchange()
    assert (delta(Fate.NO_NEIGHBOUR), delta(Fate.FORWARDED)) == (1, 2)


@pytest.mark.clause("FM-3")
@versions
def test_tunnel_goes_up(
    own_router: Router, cleanup: ExitStack, rise: Callable[[], CounterDelta], version: int
) -> None:
    """A packet that leaves through an IP tunnel is passed to the stack."""
    router = ipip.over(own_router, version)
    conn = connect(router, UDP_PROTOCOL, version, cleanup)
    conn.offloaded()
    delta = rise()
    conn.client.send(tx_capture.PAYLOAD)
    assert conn.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert (delta(Fate.OTHER_WAY), delta(Fate.FORWARDED)) == (1, 0)


@pytest.mark.clause("FM-3")
@versions
def test_ipsec_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], CounterDelta], version: int
) -> None:
    """A packet that leaves through IPsec is passed to the stack."""
    ipsec.over(own_router, version)
    conn = own_connection(UDP_PROTOCOL, version)
    conn.offloaded()
    delta = rise()
    conn.client.send(tx_capture.PAYLOAD)
    assert conn.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert (delta(Fate.OTHER_WAY), delta(Fate.FORWARDED)) == (1, 0)
