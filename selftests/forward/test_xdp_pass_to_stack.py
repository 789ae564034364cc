# SPDX-License-Identifier: GPL-2.0-only
"""Packets that the XDP forwarder passes to the stack.

It counts each under its reason, and the stack handles the packet as usual.
"""

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology import ipip, ipsec
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, connect
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

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


CounterDelta = Callable[[ForwardResult], int]
"""How often a forwarding result has been counted since the start."""


@pytest.fixture
def counter_delta(xdp_forwarder: XdpForwarder) -> Callable[[], CounterDelta]:
    """Give a function that starts counting the forwarder's results."""

    def start() -> CounterDelta:
        before = xdp_forwarder.result_counts()
        return lambda fate: xdp_forwarder.result_counts()[fate] - before[fate]

    return start


@pytest.mark.clause("SN-2.5")
def test_packets_before_offload_pass_to_stack(
    open_private_connection: OpenConnection, counter_delta: Callable[[], CounterDelta]
) -> None:
    """Packets before the offload have no flow and are passed to the stack."""
    delta = counter_delta()
    open_private_connection(IPPROTO_UDP, 4).exchange()
    assert delta(ForwardResult.NO_FLOW) == 2
    assert delta(ForwardResult.FORWARDED) == 0


@pytest.mark.clause("FM-3.20")
@versions
def test_ip_fragments_pass_to_stack(
    open_private_connection: OpenConnection, counter_delta: Callable[[], CounterDelta], version: int
) -> None:
    """IP fragments of an offloaded connection are passed to the stack."""
    conn = open_private_connection(IPPROTO_UDP, version)
    conn.wait_offloaded()
    level, option = _MTU_DISCOVER[version]
    conn.client.setsockopt(level, option, _PMTUDISC_DONT)
    delta = counter_delta()
    long = tx_capture.PAYLOAD.ljust(4000)
    conn.client.send(long)
    assert conn.server.recv(1 << 16) == long
    if version == 4:
        assert delta(ForwardResult.FRAGMENT) == 3
    else:
        # XDP sees the fragment header, not UDP. Neighbour discovery counts here, too, at any
        # time: hence no exact count.
        assert delta(ForwardResult.NOT_TCP_OR_UDP) >= 3
    assert delta(ForwardResult.FORWARDED) == 0


@pytest.mark.clause("FM-3.20")
def test_packet_with_ipv4_options_passes_to_stack(
    open_private_connection: OpenConnection, counter_delta: Callable[[], CounterDelta]
) -> None:
    """A packet with IPv4 options is passed to the stack."""
    conn = open_private_connection(IPPROTO_UDP, 4)
    conn.wait_offloaded()
    conn.client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _IP_OPTION_NOPS)
    delta = counter_delta()
    conn.client.send(tx_capture.PAYLOAD)
    assert conn.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert delta(ForwardResult.IP_OPTIONS) == 1


@pytest.mark.clause("FM-3.20")
@versions
def test_packet_with_ttl_1_passes_to_stack(
    private_router: Router,
    open_private_connection: OpenConnection,
    counter_delta: Callable[[], CounterDelta],
    version: int,
) -> None:
    """A packet with TTL or hop limit 1 is passed to the stack, which sends time exceeded."""
    conn = open_private_connection(IPPROTO_UDP, version)
    conn.wait_offloaded()
    conn.client.setsockopt(*_TTL_OPTION[version], 1)
    delta = counter_delta()
    with (
        rx_capture.capture_rx(private_router.server) as at_server,
        rx_capture.capture_rx(private_router.client) as at_client,
    ):
        conn.client.send(tx_capture.PAYLOAD)
        # The stack's ICMP error quotes the packet.
        assert at_client(tx_capture.PAYLOAD)
        assert not at_server(tx_capture.PAYLOAD, 0)
    assert delta(ForwardResult.TTL_EXPIRES) == 1


@pytest.mark.clause("FM-3.16", "FM-3.20")
@versions
def test_packet_above_mtu_passes_to_stack(
    private_router: Router,
    open_private_connection: OpenConnection,
    counter_delta: Callable[[], CounterDelta],
    version: int,
) -> None:
    """A packet above the output MTU is passed to the stack, which sends packet too big."""
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.set_mtu(private_router.wan.ifindex, _SMALL_MTU)],
        private_router.namespace,
    )
    conn = open_private_connection(IPPROTO_UDP, version)
    conn.wait_offloaded()
    level, option = _MTU_DISCOVER[version]
    conn.client.setsockopt(level, option, _PMTUDISC_DO)
    header = {4: 28, 6: 48}[version]
    delta = counter_delta()
    largest = tx_capture.PAYLOAD.ljust(_SMALL_MTU - header)
    conn.client.send(largest)
    assert conn.server.recv(1 << 16) == largest
    assert (delta(ForwardResult.TOO_LARGE), delta(ForwardResult.FORWARDED)) == (0, 1)
    conn.client.send(largest + b"!")
    assert delta(ForwardResult.TOO_LARGE) == 1
    # The stack's ICMP error: packet too big.
    with expect_errno(errno.EMSGSIZE):
        conn.client.recv(1)


def _connection_ended(sock: socket.socket) -> bool:
    """Return whether a socket reads end of file or a reset."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.clause("FM-3.20")
@pytest.mark.parametrize(
    "end",
    [Connection.client_fin, Connection.client_rst, Connection.server_rst],
    ids=["client-fin", "client-rst", "server-rst"],
)
def test_tcp_fin_and_rst_pass_to_stack(
    open_private_connection: OpenConnection,
    counter_delta: Callable[[], CounterDelta],
    end: Callable[[Connection], None],
) -> None:
    """FIN and RST segments are passed to the stack and reach the peer."""
    conn = open_private_connection(IPPROTO_TCP, 4)
    conn.wait_offloaded()
    delta = counter_delta()
    end(conn)
    assert _connection_ended(conn.client if end is Connection.server_rst else conn.server)
    assert delta(ForwardResult.TCP_CONTROL) == 1
    assert delta(ForwardResult.OUT_OF_WINDOW) == 0


@pytest.mark.clause("FM-3.14")
@versions
def test_packet_without_neighbour_passes_to_stack(
    private_router: Router,
    open_private_connection: OpenConnection,
    counter_delta: Callable[[], CounterDelta],
    version: int,
) -> None:
    """A packet without a neighbour entry for its next hop is passed to the stack.

    There the flowtable takes it; in 7.3 it sends it to MAC address zero (docs/findings.md).
    """
    conn = open_private_connection(IPPROTO_UDP, version)
    conn.wait_offloaded()
    wan, host = private_router.wan, private_router.server
    address = host.addresses[version]
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.delete_neigh(wan.ifindex, address)], wan.namespace
    )
    delta = counter_delta()
    conn.client.send(tx_capture.PAYLOAD)
    assert (delta(ForwardResult.NO_NEIGHBOUR), delta(ForwardResult.FORWARDED)) == (1, 0)

    known = rtnetlink.add_permanent_neigh(wan.ifindex, address, host.mac)
    netlink.transact(netlink.NETLINK_ROUTE, [known], wan.namespace)
    conn.exchange()
    assert (delta(ForwardResult.NO_NEIGHBOUR), delta(ForwardResult.FORWARDED)) == (1, 2)


@pytest.mark.flow_table_has("tunnels")
@pytest.mark.clause("FM-3.21")
@versions
def test_packet_into_ip_tunnel_passes_to_stack(
    private_router: Router,
    cleanup: ExitStack,
    counter_delta: Callable[[], CounterDelta],
    version: int,
) -> None:
    """A packet that leaves through an IP tunnel is passed to the stack."""
    router = ipip.add_tunnel(private_router, version)
    conn = connect(router, IPPROTO_UDP, version, cleanup)
    conn.wait_offloaded()
    delta = counter_delta()
    conn.client.send(tx_capture.PAYLOAD)
    assert conn.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert (delta(ForwardResult.OTHER_XMIT), delta(ForwardResult.FORWARDED)) == (1, 0)


@pytest.mark.clause("FM-3.12")
@versions
def test_packet_into_ipsec_passes_to_stack(
    private_router: Router,
    open_private_connection: OpenConnection,
    counter_delta: Callable[[], CounterDelta],
    version: int,
) -> None:
    """A packet that leaves through IPsec is passed to the stack."""
    ipsec.add_esp_tunnel(private_router, version)
    conn = open_private_connection(IPPROTO_UDP, version)
    conn.wait_offloaded()
    delta = counter_delta()
    conn.client.send(tx_capture.PAYLOAD)
    assert conn.server.recv(1 << 16) == tx_capture.PAYLOAD
    assert (delta(ForwardResult.OTHER_XMIT), delta(ForwardResult.FORWARDED)) == (1, 0)
