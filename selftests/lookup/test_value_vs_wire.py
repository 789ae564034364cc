# SPDX-License-Identifier: GPL-2.0-only
"""Flow values compared with captured frames: the kernel's forwarding is the oracle."""

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe
from fixtures.guest.topology import ipip, ipsec, pppoe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import packet_headers, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection, connect

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat"),
    Plan(nat="dnat"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(7,)),
    Plan(vlans=(100, 7)),
    Plan(nat="masquerade", vlans=(7,)),
    Plan(bridge="plain"),
    Plan(bridge="vlan"),
    Plan(nat="snat+dnat", bridge="vlan"),
]
_IP_UDP_LEN = {4: 20 + 8, 6: 40 + 8}
_ETHERNET_LEN = 14
_MTU_DISCOVER = {
    4: (socket.IPPROTO_IP, 10, 2),  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    6: (socket.IPPROTO_IPV6, 23, 2),  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
}


def _check_transmitted_frames(router: Router, flowmap: int, conn: Connection) -> None:
    """Exchange one payload; compare the frames sent in each direction with its value."""
    flow = conn.offloaded()
    with tx_capture.frames(router.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        for key, device in ((flow.original, router.outside), (flow.reply, router.inside)):
            value = bpf.lookup(flowmap, key)
            seen = {
                packet_headers.carried(frame) for frame in sent(device.device, tx_capture.PAYLOAD)
            }
            assert seen == {packet_headers.promised(value, key.l3proto)}
            assert value.oifindex == device.index


@pytest.mark.clause("FM-3", "SN-4")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=describe, indirect=True)
@versions
@protocols
def test_packets_leave_as_the_value_says(
    router: Router, flowmap: int, connection: Connect, protocol: int, version: int
) -> None:
    """Frames leave with the headers and by the device that the values give."""
    _check_transmitted_frames(router, flowmap, connection(protocol, version))


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_packets_leave_in_the_session_that_the_value_names(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    """Frames to a PPPoE client leave in the session that the value gives."""
    router = pppoe.over(own_router, 0x1234, cleanup)
    _check_transmitted_frames(router, own_flowmap, connect(router, UDP_PROTOCOL, version, cleanup))


@pytest.mark.clause("FM-3", "FM-4", "FM-6")
@versions
@protocols
def test_packets_leave_in_the_tunnel_that_the_value_names(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    """Frames leave in the IP tunnel that the value gives; a key without the tunnel misses."""
    router = ipip.over(own_router, version)
    conn = connect(router, protocol, version, cleanup)
    _check_transmitted_frames(router, own_flowmap, conn)

    flow = conn.offloaded()
    assert bpf.lookup(own_flowmap, flow.original).tun_l4proto == flow.reply.tun_l4proto != 0
    plain = uapi.Key.from_buffer_copy(flow.reply)
    plain.tun_l4proto, plain.tun_src, plain.tun_dst = 0, uapi.Address(), uapi.Address()
    assert bpf.found(own_flowmap, plain) is None
    assert sorted(map(bytes, bpf.keys(own_flowmap))) == sorted(map(bytes, flow.keys))


@pytest.mark.clause("FM-3", "FM-4")
@versions
@protocols
def test_packets_leave_through_ipsec_where_the_value_says_so(
    own_router: Router, own_flowmap: int, own_connection: Connect, protocol: int, version: int
) -> None:
    """Packets whose value has transmit type XFRM leave the router only as ESP."""
    ipsec.over(own_router, version)
    conn = own_connection(protocol, version)
    flow = conn.offloaded()
    to_server, to_client = (bpf.lookup(own_flowmap, key) for key in flow.keys)
    assert (to_server.xmit_type, to_client.xmit_type) == (uapi.XMIT_XFRM, uapi.XMIT_NEIGH)
    # The transformation decides on the output device later.
    assert to_server.oifindex == 0

    endpoints = ipsec.between(own_router, version)
    with tx_capture.frames(own_router.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        plain = {
            device: sent(device, tx_capture.PAYLOAD)
            for device in (own_router.inside.device, own_router.outside.device)
        }
        assert plain.pop(own_router.inside.device)
        assert plain == {own_router.outside.device: []}
        esp_frames = sent(
            own_router.outside.device,
            b"".join(ip_address(endpoint).packed for endpoint in endpoints),
        )
        assert {packet_headers.protocol(frame) for frame in esp_frames} == {ipsec.ESP}


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_packets_leave_to_the_gateway_that_the_value_names(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    """Packets to a host behind a gateway leave with the gateway's MAC address from the value.

    The server's own device is that gateway: the host's address is not on the router's link.
    """
    host, prefixlen = {4: ("192.0.5.2", 32), 6: ("2001:db8:5::2", 128)}[version]
    server = own_router.server
    server_with_host = replace(server, addresses=server.addresses | {version: host})
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.address(server.index, host, prefixlen)], server.namespace
    )
    route = rtnetlink.route(host, prefixlen, server.addresses[version])
    netlink.transact(netlink.NETLINK_ROUTE, [route], own_router.namespace)

    conn = connect(replace(own_router, server=server_with_host), UDP_PROTOCOL, version, cleanup)
    _check_transmitted_frames(own_router, own_flowmap, conn)
    value = bpf.lookup(own_flowmap, conn.offloaded().original)
    assert uapi.mac(value.h_dest) == server.mac


@pytest.mark.clause("FM-3")
def test_value_names_no_station_where_an_ipv4_route_has_an_ipv6_gateway(
    own_router: Router, own_flowmap: int, cleanup: ExitStack
) -> None:
    """The value of an IPv4 route with an IPv6 gateway has no MAC addresses.

    The flowtable itself sends an ARP request for the destination, whatever the route says.
    """
    host = "192.0.5.2"
    server = own_router.server
    server_with_host = replace(server, addresses=server.addresses | {4: host})
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.address(server.index, host, 32)], server.namespace
    )
    route = rtnetlink.route(host, 32, server.addresses[6])
    netlink.transact(netlink.NETLINK_ROUTE, [route], own_router.namespace)

    flow = connect(
        replace(own_router, server=server_with_host), UDP_PROTOCOL, 4, cleanup
    ).offloaded()
    to_server, to_client = (bpf.lookup(own_flowmap, key) for key in flow.keys)
    assert to_server.oifindex == own_router.outside.index
    assert bytes(to_server.h_dest) == bytes(to_server.h_source) == bytes(6)
    assert uapi.mac(to_client.h_dest) == own_router.client.mac


def _ip_lengths(frames: Sequence[bytes]) -> set[int]:
    """Return the lengths of the frames' IP packets in bytes."""
    return {len(frame) - _ETHERNET_LEN for frame in frames}


@pytest.mark.clause("FM-3")
@versions
def test_mtu_is_the_largest_packet_that_leaves(
    own_router: Router, own_flowmap: int, own_connection: Connect, version: int
) -> None:
    """A packet as large as the value's MTU leaves; one byte more is refused as too big."""
    mtu = 1400
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.mtu(own_router.outside.index, mtu)],
        own_router.namespace,
    )
    conn = own_connection(UDP_PROTOCOL, version)
    flow = conn.offloaded()
    assert bpf.lookup(own_flowmap, flow.original).mtu == mtu

    conn.client.setsockopt(*_MTU_DISCOVER[version])
    largest = mtu - _IP_UDP_LEN[version]
    with tx_capture.frames(own_router.namespace) as sent:
        conn.client.send(tx_capture.PAYLOAD.ljust(largest))
        assert len(conn.server.recv(1 << 16)) == largest
        conn.client.send(tx_capture.PAYLOAD.ljust(largest + 1))
        # The router's ICMP error: packet too big.
        with refused(errno.EMSGSIZE):
            conn.client.recv(1)
        assert _ip_lengths(sent(own_router.outside.device, tx_capture.PAYLOAD)) == {mtu}
