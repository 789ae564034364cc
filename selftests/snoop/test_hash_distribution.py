# SPDX-License-Identifier: GPL-2.0-only
"""Where a snoop table keeps its flows: spread, whatever it is that they differ in.

Whoever sends packets through a router chooses what flows differ in.  Of flows that all hash
alike, each lookup walks the whole chain.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.drgn_client import KernelMemory
from fixtures.guest.net import netlink, netns, rtnetlink
from fixtures.guest.net.conntrack import Tuple
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, frame, send_frames

MANY = 32
FEW = 8
"""Buckets.  Of 64, which is what a table begins with, 32 flows at random take 25, and fewer than
12 not once in 10^12 times."""

Differ = Callable[[Tuple, int], Tuple]


def _source(side: Tuple, number: int) -> Tuple:
    return replace(side, source=str(ip_address(side.source) + number))


def _destination(side: Tuple, number: int) -> Tuple:
    return replace(side, destination=str(ip_address(side.destination) + number))


def _source_port(side: Tuple, number: int) -> Tuple:
    return replace(side, source_port=side.source_port + number)


def _destination_port(side: Tuple, number: int) -> Tuple:
    return replace(side, destination_port=side.destination_port + number)


@pytest.mark.clause("FM-5", "SN-2")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "differ",
    [_source, _destination, _source_port, _destination_port],
    ids=lambda differ: differ.__name__.removeprefix("_"),
)
def test_flows_that_differ_in_one_field_are_spread(
    own_router: Router,
    own_flowmap: int,
    kernel_memory: KernelMemory,
    version: int,
    differ: Differ,
) -> None:
    router = own_router
    # None ends while the others are added.
    netns.set_sysctls(router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    client, server = router.client.addresses[version], router.server.addresses[version]
    first = Tuple(UDP_PROTOCOL, client, server, 41000, 7000)
    sides = [differ(first, number) for number in range(MANY)]
    stations = [
        message
        for side in sides
        for message in (
            rtnetlink.neighbour(router.inside.index, side.source, router.client.mac),
            rtnetlink.neighbour(router.outside.index, side.destination, router.server.mac),
        )
    ]
    netlink.transact(netlink.NETLINK_ROUTE, stations, router.namespace)
    for side in sides:
        send_frames(router.client, [frame(router.client, router.inside, side)])
        send_frames(router.server, [frame(router.server, router.outside, side.reversed())])
    wait_for("the flows to be offloaded", lambda: bpf.entries(own_flowmap) == MANY)

    entries = kernel_memory.table_of(bpf.map_info(own_flowmap).id).entries
    for direction in (0, 1):
        buckets = {entry.bucket for entry in entries if entry.direction == direction}
        assert len(buckets) >= FEW
