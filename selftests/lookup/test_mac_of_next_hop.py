# SPDX-License-Identifier: GPL-2.0-only
"""MAC addresses follow the neighbour that packets go to, whether or not it is the destination.

The next hop is the destination itself, a gateway, the far end of a tunnel, or the destination after
DNAT.  No packet is sent while the neighbour changes, so that nothing refreshes the flow.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from pyroute2.netlink import nlmsg

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap
from fixtures.guest.topology import ipip
from fixtures.guest.topology.client_router_server import (
    Interface,
    Router,
    RouterConfig,
    build_router,
)
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow, connect

_NONE = ("00:00:00:00:00:00",) * 2
_MACS = ("02:00:00:00:00:77", "06:11:22:33:44:55", "0a:99:88:77:66:55")
_BEHIND: dict[int, tuple[tuple[str, str], tuple[str, str]]] = {
    4: (("192.0.5.2", "192.0.5.77"), ("192.0.6.2", "192.0.6.77")),
    6: (
        ("2001:db8:5::2", "2001:db8:5::4d00:77"),
        ("2001:db8:6::2", "2001:db8:6:1::9"),
    ),
}
"""By IP version: hosts behind the client, and hosts behind the server."""
_PREFIX = {4: 32, 6: 128}


@dataclass(frozen=True)
class Paths:
    """A router, the ends of connections through it, and the next hop of each direction."""

    router: Router
    ends: tuple[Router, ...]
    """The router with the addresses of clients and servers, for each pair of them."""
    next_hops: tuple[tuple[Interface, str, str], tuple[Interface, str, str]]
    """The router's device, and address and MAC of the neighbour: original direction first."""


def _send(namespace: str, *messages: nlmsg) -> None:
    netlink.transact(netlink.NETLINK_ROUTE, messages, namespace)


def _plain(router: Router, version: int) -> Paths:
    return Paths(
        router,
        (router,),
        (
            (router.wan, router.server.addresses[version], router.server.mac),
            (router.lan, router.client.addresses[version], router.client.mac),
        ),
    )


def _direct(version: int, cleanup: ExitStack) -> Paths:
    return _plain(build_router(RouterConfig(netns_prefix="hop"), cleanup), version)


def _dnat(version: int, cleanup: ExitStack) -> Paths:
    return _plain(build_router(RouterConfig(nat="dnat", netns_prefix="hop"), cleanup), version)


def _tunnel(version: int, cleanup: ExitStack) -> Paths:
    paths = _direct(version, cleanup)
    return replace(paths, ends=(ipip.add_tunnel(paths.router, version),))


def _gateway(version: int, cleanup: ExitStack) -> Paths:
    """Both hosts are gateways to further addresses, which are not on the router's links."""
    paths = _direct(version, cleanup)
    router = paths.router
    (near, far), prefix = _BEHIND[version], _PREFIX[version]
    for host, hosts in ((router.client, near), (router.server, far)):
        for address in hosts:
            _send(host.namespace, rtnetlink.add_address(host.ifindex, address, prefix))
            _send(router.namespace, rtnetlink.add_route(address, prefix, host.addresses[version]))
    ends = tuple(
        replace(
            router,
            client=replace(router.client, addresses=router.client.addresses | {version: client}),
            server=replace(router.server, addresses=router.server.addresses | {version: server}),
        )
        for client, server in zip(near, far, strict=True)
    )
    return replace(paths, ends=ends)


KINDS: dict[str, Callable[[int, ExitStack], Paths]] = {
    "direct": _direct,
    "gateway": _gateway,
    "tunnel": _tunnel,
    "dnat": _dnat,
}

each_kind = pytest.mark.parametrize("kind", KINDS)
each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
pytestmark = pytest.mark.usefixtures("flowtable_modules")


def _offload(paths: Paths, version: int, cleanup: ExitStack) -> list[Flow]:
    """Offload connections of UDP, which sends no delayed packet that would resolve a neighbour."""
    return [
        connect(ends, IPPROTO_UDP, version, cleanup, server_port=port).wait_offloaded()
        for ends in paths.ends
        for port in (7500, 7501)
    ]


def _macs(fd: int, key: uapi.Key) -> tuple[str, str]:
    value = bpf.lookup(fd, key)
    return uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)


@pytest.mark.clause("FM-3.13", "FM-3.14")
@each_kind
@each_version
def test_value_mac_follows_the_next_hop(
    make_flowmap: MakeFlowmap, load_bpf: LoadBpf, cleanup: ExitStack, kind: str, version: int
) -> None:
    """After each change of the next hop, every flow through it has its address at once.

    Entries for other addresses on the same link, the flow's own destination among them, change
    nothing.
    """
    paths = KINDS[kind](version, cleanup)
    namespace = paths.router.namespace
    fd = make_flowmap(namespace)
    passive = make_flowmap(namespace, map_extra=uapi.PASSIVE)
    probe = LookupProbe(load_bpf("lookup_probe", passive, "by_xdp"), "by_xdp")
    flows = _offload(paths, version, cleanup)
    for direction, (port, host, first_mac) in enumerate(paths.next_hops):
        keys = [flow.keys[direction] for flow in flows]

        def assert_macs(expected: tuple[str, str], when: str) -> None:
            for key in keys:  # noqa: B023
                assert _macs(fd, key) == expected, f"direction {direction}, {when}"  # noqa: B023
                value = probe.lookup(key)
                assert value is not None
                assert uapi.format_mac(value.h_dest) == expected[1], f"by a program, {when}"

        assert_macs((port.mac, first_mac), "at first")
        for mac in (*_MACS, first_mac):
            _send(namespace, rtnetlink.add_permanent_neigh(port.ifindex, host, mac))
            assert_macs((port.mac, mac), f"after the change to {mac}")
            _send(namespace, rtnetlink.delete_neigh(port.ifindex, host))
            assert_macs(_NONE, f"after the deletion of {mac}")
            _send(namespace, rtnetlink.add_permanent_neigh(port.ifindex, host, mac))
            assert_macs((port.mac, mac), f"after {mac} was added again")
        if kind != "gateway":
            continue
        destinations = _BEHIND[version][0 if direction else 1]
        for address in destinations:
            _send(namespace, rtnetlink.add_permanent_neigh(port.ifindex, address, _MACS[0]))
            assert_macs((port.mac, first_mac), f"with a neighbour entry of {address}")
            _send(namespace, rtnetlink.delete_neigh(port.ifindex, address))
            assert_macs((port.mac, first_mac), f"without a neighbour entry of {address}")


@pytest.mark.clause("FM-3.13", "FM-3.14")
@each_kind
@each_version
def test_value_that_was_first_read_without_neighbour_gets_its_mac(
    make_flowmap: MakeFlowmap, cleanup: ExitStack, kind: str, version: int
) -> None:
    """The first lookup finds no neighbour: zeros.  Once there is one, the value has its address."""
    paths = KINDS[kind](version, cleanup)
    namespace = paths.router.namespace
    fd = make_flowmap(namespace)
    flows = _offload(paths, version, cleanup)
    for port, host, _ in paths.next_hops:
        _send(namespace, rtnetlink.delete_neigh(port.ifindex, host))
    for direction, (port, host, mac) in enumerate(paths.next_hops):
        for number, flow in enumerate(flows):
            assert _macs(fd, flow.keys[direction]) == _NONE, f"flow {number}"
        _send(namespace, rtnetlink.add_permanent_neigh(port.ifindex, host, mac))
        for number, flow in enumerate(flows):
            seen = _macs(fd, flow.keys[direction])
            assert seen == (port.mac, mac), f"flow {number}, direction {direction}"
