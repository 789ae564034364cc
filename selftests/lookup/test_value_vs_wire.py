# SPDX-License-Identifier: GPL-2.0-only
"""The wire as the judge: what a value promises is what the kernel's own forwarding sends."""

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
from fixtures.guest.pytest_plugin.fixtures import Connect, describe
from fixtures.guest.topology import ipip, ipsec, pppoe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import packet_headers, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection, connect

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PLANS = [
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
_HEADERS = {4: 20 + 8, 6: 40 + 8}
_ETHERNET = 14
_MTU_DISCOVER = {
    4: (socket.IPPROTO_IP, 10, 2),  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    6: (socket.IPPROTO_IPV6, 23, 2),  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
}


def _require_wire_to_agree(router: Router, flowmap: int, talk: Connection) -> None:
    """Both directions' values against the frames of one more exchange."""
    flow = talk.offloaded()
    with tx_capture.frames(router.namespace) as sent:
        talk.exchange(tx_capture.PAYLOAD)
        for key, device in ((flow.original, router.outside), (flow.reply, router.inside)):
            value = bpf.lookup(flowmap, key)
            seen = {
                packet_headers.carried(frame) for frame in sent(device.device, tx_capture.PAYLOAD)
            }
            assert seen == {packet_headers.promised(value, key.l3proto)}
            assert value.oifindex == device.index


@pytest.mark.clause("FM-3", "SN-4")
@pytest.mark.parametrize("router", PLANS, ids=describe, indirect=True)
@versions
@protocols
def test_packets_leave_as_the_value_says(
    router: Router, flowmap: int, connection: Connect, protocol: int, version: int
) -> None:
    _require_wire_to_agree(router, flowmap, connection(protocol, version))


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_packets_leave_in_the_session_that_the_value_names(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    router = pppoe.over(own_router, 0x1234, cleanup)
    _require_wire_to_agree(router, own_flowmap, connect(router, UDP_PROTOCOL, version, cleanup))


@pytest.mark.clause("FM-3", "FM-4", "FM-6")
@versions
@protocols
def test_packets_leave_in_the_tunnel_that_the_value_names(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    router = ipip.over(own_router, version)
    talk = connect(router, protocol, version, cleanup)
    _require_wire_to_agree(router, own_flowmap, talk)

    flow = talk.offloaded()
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
    ipsec.over(own_router, version)
    talk = own_connection(protocol, version)
    flow = talk.offloaded()
    outwards, inwards = (bpf.lookup(own_flowmap, key) for key in flow.keys)
    assert (outwards.xmit_type, inwards.xmit_type) == (uapi.XMIT_XFRM, uapi.XMIT_NEIGH)
    # By which device is decided behind the transformation.
    assert outwards.oifindex == 0

    ends = ipsec.between(own_router, version)
    with tx_capture.frames(own_router.namespace) as sent:
        talk.exchange(tx_capture.PAYLOAD)
        plain = {
            device: sent(device, tx_capture.PAYLOAD)
            for device in (own_router.inside.device, own_router.outside.device)
        }
        assert plain.pop(own_router.inside.device)
        assert plain == {own_router.outside.device: []}
        outer = sent(own_router.outside.device, b"".join(ip_address(end).packed for end in ends))
        assert {packet_headers.protocol(frame) for frame in outer} == {ipsec.ESP}


@pytest.mark.clause("FM-3", "FM-4")
@versions
def test_packets_leave_to_the_gateway_that_the_value_names(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    """The server is not on the router's link: its own station is the gateway to it."""
    host, whole = {4: ("192.0.5.2", 32), 6: ("2001:db8:5::2", 128)}[version]
    server = own_router.server
    behind = replace(server, addresses=server.addresses | {version: host})
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.address(server.index, host, whole)], server.namespace
    )
    way = rtnetlink.route(host, whole, server.addresses[version])
    netlink.transact(netlink.NETLINK_ROUTE, [way], own_router.namespace)

    talk = connect(replace(own_router, server=behind), UDP_PROTOCOL, version, cleanup)
    _require_wire_to_agree(own_router, own_flowmap, talk)
    value = bpf.lookup(own_flowmap, talk.offloaded().original)
    assert uapi.mac(value.h_dest) == server.mac


@pytest.mark.clause("FM-3")
def test_value_names_no_station_where_an_ipv4_route_has_an_ipv6_gateway(
    own_router: Router, own_flowmap: int, cleanup: ExitStack
) -> None:
    """The flow table itself asks ARP for the server, whatever the route says."""
    host = "192.0.5.2"
    server = own_router.server
    behind = replace(server, addresses=server.addresses | {4: host})
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.address(server.index, host, 32)], server.namespace
    )
    way = rtnetlink.route(host, 32, server.addresses[6])
    netlink.transact(netlink.NETLINK_ROUTE, [way], own_router.namespace)

    flow = connect(replace(own_router, server=behind), UDP_PROTOCOL, 4, cleanup).offloaded()
    there, back = (bpf.lookup(own_flowmap, key) for key in flow.keys)
    assert there.oifindex == own_router.outside.index
    assert bytes(there.h_dest) == bytes(there.h_source) == bytes(6)
    assert uapi.mac(back.h_dest) == own_router.client.mac


def _lengths(frames: Sequence[bytes]) -> set[int]:
    return {len(frame) - _ETHERNET for frame in frames}


@pytest.mark.clause("FM-3")
@versions
def test_mtu_is_the_largest_packet_that_leaves(
    own_router: Router, own_flowmap: int, own_connection: Connect, version: int
) -> None:
    narrow = 1400
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.mtu(own_router.outside.index, narrow)],
        own_router.namespace,
    )
    talk = own_connection(UDP_PROTOCOL, version)
    flow = talk.offloaded()
    assert bpf.lookup(own_flowmap, flow.original).mtu == narrow

    talk.client.setsockopt(*_MTU_DISCOVER[version])
    largest = narrow - _HEADERS[version]
    with tx_capture.frames(own_router.namespace) as sent:
        talk.client.send(tx_capture.PAYLOAD.ljust(largest))
        assert len(talk.server.recv(1 << 16)) == largest
        talk.client.send(tx_capture.PAYLOAD.ljust(largest + 1))
        # The router's answer: packet too big.
        with refused(errno.EMSGSIZE):
            talk.client.recv(1)
        assert _lengths(sent(own_router.outside.device, tx_capture.PAYLOAD)) == {narrow}
