# SPDX-License-Identifier: GPL-2.0-only
"""What the program leaves to the stack: it says why, and the packet comes to its end."""

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.core.expect_errno import refused
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology import ipip, ipsec
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection, connect
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

_NARROW = 1400
_HOPS = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
_DISCOVER = {  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: _DO, _DONT
    4: (socket.IPPROTO_IP, 10),
    6: (socket.IPPROTO_IPV6, 23),
}
_DO, _DONT = 2, 0
_NOPS = bytes([1, 1, 1, 1])


Rise = Callable[[Fate], int]
"""By how much a count has grown."""


@pytest.fixture
def rise(forwarder: Forwarder) -> Callable[[], Rise]:
    """Gives what tells how counts have grown since it was asked for."""

    def begin() -> Rise:
        before = forwarder.fates()
        return lambda fate: forwarder.fates()[fate] - before[fate]

    return begin


@pytest.mark.clause("FM-4", "FM-5")
def test_first_packets_go_up(own_connection: Connect, rise: Callable[[], Rise]) -> None:
    counted = rise()
    own_connection(UDP_PROTOCOL, 4).exchange()
    assert counted(Fate.NO_FLOW) == 2
    assert counted(Fate.FORWARDED) == 0


@pytest.mark.clause("FM-4")
@versions
def test_fragments_go_up(own_connection: Connect, rise: Callable[[], Rise], version: int) -> None:
    talk = own_connection(UDP_PROTOCOL, version)
    talk.offloaded()
    level, option = _DISCOVER[version]
    talk.client.setsockopt(level, option, _DONT)
    counted = rise()
    long = tx_capture.PAYLOAD.ljust(4000)
    talk.client.send(long)
    assert talk.server.recv(1 << 16) == long
    if version == 4:
        assert counted(Fate.FRAGMENT) == 3
    else:
        # Fragments by a header of their own: no UDP is seen at all.  Nor is it in what hosts
        # ask each other when they like.
        assert counted(Fate.NOT_TCP_OR_UDP) >= 3
    assert counted(Fate.FORWARDED) == 0


@pytest.mark.clause("FM-4")
def test_options_go_up(own_connection: Connect, rise: Callable[[], Rise]) -> None:
    talk = own_connection(UDP_PROTOCOL, 4)
    talk.offloaded()
    talk.client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _NOPS)
    counted = rise()
    talk.client.send(tx_capture.PAYLOAD)
    assert talk.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert counted(Fate.OPTIONS) == 1


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_last_hop_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], Rise], version: int
) -> None:
    talk = own_connection(UDP_PROTOCOL, version)
    talk.offloaded()
    talk.client.setsockopt(*_HOPS[version], 1)
    counted = rise()
    with (
        rx_capture.frames(own_router.server) as at_server,
        rx_capture.frames(own_router.client) as at_client,
    ):
        talk.client.send(tx_capture.PAYLOAD)
        # The stack's complaint has the packet in it.
        assert at_client(tx_capture.PAYLOAD)
        assert not at_server(tx_capture.PAYLOAD, 0)
    assert counted(Fate.EXPIRES) == 1


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_packet_larger_than_the_mtu_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], Rise], version: int
) -> None:
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.mtu(own_router.outside.index, _NARROW)],
        own_router.namespace,
    )
    talk = own_connection(UDP_PROTOCOL, version)
    talk.offloaded()
    level, option = _DISCOVER[version]
    talk.client.setsockopt(level, option, _DO)
    header = {4: 28, 6: 48}[version]
    counted = rise()
    largest = tx_capture.PAYLOAD.ljust(_NARROW - header)
    talk.client.send(largest)
    assert talk.server.recv(1 << 16) == largest
    assert (counted(Fate.TOO_LARGE), counted(Fate.FORWARDED)) == (0, 1)
    talk.client.send(largest + b"!")
    assert counted(Fate.TOO_LARGE) == 1
    # The stack's answer: packet too big.
    with refused(errno.EMSGSIZE):
        talk.client.recv(1)


def _hears_the_end(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.clause("FM-4", "SN-6")
@pytest.mark.parametrize("end", [Connection.finish, Connection.reset, Connection.server_reset])
def test_end_of_a_connection_goes_up(
    own_connection: Connect, rise: Callable[[], Rise], end: Callable[[Connection], None]
) -> None:
    talk = own_connection(TCP_PROTOCOL, 4)
    talk.offloaded()
    counted = rise()
    end(talk)
    assert _hears_the_end(talk.client if end is Connection.server_reset else talk.server)
    assert counted(Fate.CONTROL) == 1
    assert counted(Fate.OUT_OF_WINDOW) == 0


@pytest.mark.clause("FM-3")
@versions
def test_unknown_neighbour_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], Rise], version: int
) -> None:
    """To the flow table, which in 7.3 sends it to a station of zeros (docs/findings.md)."""
    talk = own_connection(UDP_PROTOCOL, version)
    talk.offloaded()
    by, host = own_router.outside, own_router.server
    address = host.addresses[version]
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.forget(by.index, address)], by.namespace)
    counted = rise()
    talk.client.send(tx_capture.PAYLOAD)
    assert (counted(Fate.NO_NEIGHBOUR), counted(Fate.FORWARDED)) == (1, 0)

    known = rtnetlink.neighbour(by.index, address, host.mac)
    netlink.transact(netlink.NETLINK_ROUTE, [known], by.namespace)
    talk.exchange()
    assert (counted(Fate.NO_NEIGHBOUR), counted(Fate.FORWARDED)) == (1, 2)


@pytest.mark.clause("FM-3")
@versions
def test_tunnel_goes_up(
    own_router: Router, cleanup: ExitStack, rise: Callable[[], Rise], version: int
) -> None:
    router = ipip.over(own_router, version)
    talk = connect(router, UDP_PROTOCOL, version, cleanup)
    talk.offloaded()
    counted = rise()
    talk.client.send(tx_capture.PAYLOAD)
    assert talk.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert (counted(Fate.OTHER_WAY), counted(Fate.FORWARDED)) == (1, 0)


@pytest.mark.clause("FM-3")
@versions
def test_ipsec_goes_up(
    own_router: Router, own_connection: Connect, rise: Callable[[], Rise], version: int
) -> None:
    ipsec.over(own_router, version)
    talk = own_connection(UDP_PROTOCOL, version)
    talk.offloaded()
    counted = rise()
    talk.client.send(tx_capture.PAYLOAD)
    assert talk.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert (counted(Fate.OTHER_WAY), counted(Fate.FORWARDED)) == (1, 0)
