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
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology import ipip, ipsec, pppoe
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import headers_from_value, tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, connect

protocols = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [
    RouterConfig(),
    RouterConfig(nat="masquerade"),
    RouterConfig(nat="snat"),
    RouterConfig(nat="dnat"),
    RouterConfig(nat="snat+dnat"),
    RouterConfig(vlans=(7,)),
    RouterConfig(vlans=(100, 7)),
    RouterConfig(nat="masquerade", vlans=(7,)),
    RouterConfig(bridge="plain"),
    RouterConfig(bridge="vlan"),
    RouterConfig(nat="snat+dnat", bridge="vlan"),
]
_IP_UDP_LEN = {4: 20 + 8, 6: 40 + 8}
_ETHERNET_LEN = 14
_MTU_DISCOVER = {
    4: (socket.IPPROTO_IP, 10, 2),  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    6: (socket.IPPROTO_IPV6, 23, 2),  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
}


def _check_transmitted_frames(router: Router, flowmap: int, conn: Connection) -> None:
    """Exchange one payload; compare the frames sent in each direction with its value."""
    flow = conn.wait_offloaded()
    with tx_capture.capture_tx(router.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        for key, device in ((flow.original, router.wan), (flow.reply, router.lan)):
            value = bpf.lookup(flowmap, key)
            seen = {
                headers_from_value.headers_from_frame(frame)
                for frame in sent(device.device, tx_capture.PAYLOAD)
            }
            expected = headers_from_value.headers_from_value(value, key.l3proto)
            assert seen == {expected}, conn.tuple
            assert value.oifindex == device.ifindex, conn.tuple


@pytest.mark.clause("FM-3.3", "FM-3.7", "FM-3.11", "FM-3.12", "FM-3.13", "SN-4.2")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=router_config_id, indirect=True)
def test_transmitted_headers_match_value(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """Frames leave with the headers and by the device that the values give."""
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        for version in (4, 6):
            _check_transmitted_frames(router, flowmap, open_connection(protocol, version))


@pytest.mark.clause("FM-3.7", "FM-3.13", "FM-4.5")
@versions
def test_transmitted_headers_over_pppoe_match_value(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    """Frames to a PPPoE client leave in the session that the value gives."""
    router = pppoe.add_session(private_router, 0x1234, cleanup)
    _check_transmitted_frames(
        router, private_flowmap, connect(router, IPPROTO_UDP, version, cleanup)
    )


@pytest.mark.flow_table_has("tunnels")
@pytest.mark.clause("FM-3.21", "FM-5.1", "FM-6.1")
@versions
@protocols
def test_transmitted_headers_over_ip_tunnel_match_value(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    """Frames leave in the IP tunnel that the value gives; a key without the tunnel misses."""
    router = ipip.add_tunnel(private_router, version)
    conn = connect(router, protocol, version, cleanup)
    _check_transmitted_frames(router, private_flowmap, conn)

    flow = conn.wait_offloaded()
    assert bpf.lookup(private_flowmap, flow.original).tun_l4proto == flow.reply.tun_l4proto != 0
    plain = uapi.Key.from_buffer_copy(flow.reply)
    plain.tun_l4proto, plain.tun_src, plain.tun_dst = 0, uapi.Address(), uapi.Address()
    assert bpf.lookup_or_none(private_flowmap, plain) is None
    assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == sorted(map(bytes, flow.keys))


@pytest.mark.clause("FM-3.12")
@versions
@protocols
def test_packet_with_xfrm_value_leaves_as_esp(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    protocol: int,
    version: int,
) -> None:
    """Packets whose value has transmit type XFRM leave the router only as ESP."""
    ipsec.add_esp_tunnel(private_router, version)
    conn = open_private_connection(protocol, version)
    flow = conn.wait_offloaded()
    to_server, to_client = (bpf.lookup(private_flowmap, key) for key in flow.keys)
    assert (to_server.xmit_type, to_client.xmit_type) == (uapi.XMIT_XFRM, uapi.XMIT_NEIGH)
    # The IPsec transformation chooses the output device later.
    assert to_server.oifindex == 0

    endpoints = ipsec.tunnel_endpoints(private_router, version)
    with tx_capture.capture_tx(private_router.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        plain = {
            device: sent(device, tx_capture.PAYLOAD)
            for device in (private_router.lan.device, private_router.wan.device)
        }
        assert plain.pop(private_router.lan.device)
        assert plain == {private_router.wan.device: []}
        esp_frames = sent(
            private_router.wan.device,
            b"".join(ip_address(endpoint).packed for endpoint in endpoints),
        )
        assert {headers_from_value.ip_protocol(frame) for frame in esp_frames} == {ipsec.ESP}


@pytest.mark.clause("FM-3.13")
@versions
def test_transmitted_headers_via_gateway_match_value(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    """Packets to a host behind a gateway leave with the gateway's MAC address from the value.

    The server's own device is that gateway: the host's address is not on the router's link.
    """
    host, prefixlen = {4: ("192.0.5.2", 32), 6: ("2001:db8:5::2", 128)}[version]
    server = private_router.server
    server_with_host = replace(server, addresses=server.addresses | {version: host})
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.add_address(server.ifindex, host, prefixlen)],
        server.namespace,
    )
    route = rtnetlink.add_route(host, prefixlen, server.addresses[version])
    netlink.transact(netlink.NETLINK_ROUTE, [route], private_router.namespace)

    conn = connect(replace(private_router, server=server_with_host), IPPROTO_UDP, version, cleanup)
    _check_transmitted_frames(private_router, private_flowmap, conn)
    value = bpf.lookup(private_flowmap, conn.wait_offloaded().original)
    assert uapi.format_mac(value.h_dest) == server.mac


@pytest.mark.clause("FM-3.13")
def test_value_of_ipv4_route_via_ipv6_gateway_has_no_mac(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """The value of an IPv4 route with an IPv6 gateway has no MAC addresses.

    The flowtable itself sends an ARP request for the destination, not for the gateway.
    """
    host = "192.0.5.2"
    server = private_router.server
    server_with_host = replace(server, addresses=server.addresses | {4: host})
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.add_address(server.ifindex, host, 32)], server.namespace
    )
    route = rtnetlink.add_route(host, 32, server.addresses[6])
    netlink.transact(netlink.NETLINK_ROUTE, [route], private_router.namespace)

    flow = connect(
        replace(private_router, server=server_with_host), IPPROTO_UDP, 4, cleanup
    ).wait_offloaded()
    to_server, to_client = (bpf.lookup(private_flowmap, key) for key in flow.keys)
    assert to_server.oifindex == private_router.wan.ifindex
    assert bytes(to_server.h_dest) == bytes(to_server.h_source) == bytes(6)
    assert uapi.format_mac(to_client.h_dest) == private_router.client.mac


def _ip_lengths(frames: Sequence[bytes]) -> set[int]:
    """Return the lengths of the frames' IP packets in bytes."""
    return {len(frame) - _ETHERNET_LEN for frame in frames}


@pytest.mark.clause("FM-3.16")
@versions
def test_value_mtu_is_largest_forwarded_packet(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """A packet as large as the value's MTU leaves; one byte more is refused as too big."""
    mtu = 1400
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.set_mtu(private_router.wan.ifindex, mtu)],
        private_router.namespace,
    )
    conn = open_private_connection(IPPROTO_UDP, version)
    flow = conn.wait_offloaded()
    assert bpf.lookup(private_flowmap, flow.original).mtu == mtu

    conn.client.setsockopt(*_MTU_DISCOVER[version])
    largest = mtu - _IP_UDP_LEN[version]
    with tx_capture.capture_tx(private_router.namespace) as sent:
        conn.client.send(tx_capture.PAYLOAD.ljust(largest))
        assert len(conn.server.recv(1 << 16)) == largest
        conn.client.send(tx_capture.PAYLOAD.ljust(largest + 1))
        # The router's ICMP error: packet too big.
        with expect_errno(errno.EMSGSIZE):
            conn.client.recv(1)
        assert _ip_lengths(sent(private_router.wan.device, tx_capture.PAYLOAD)) == {mtu}
