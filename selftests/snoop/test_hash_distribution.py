# SPDX-License-Identifier: GPL-2.0-only
"""Hash distribution of a netns' index for flows that differ in a single field.

The sender of the packets chooses that field.  If such flows hash alike, each lookup walks one
long chain.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.drgn_client import DrgnClient
from fixtures.guest.net import netlink, netns, rtnetlink
from fixtures.guest.net.conntrack import Tuple
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, build_frame, send_frames

FLOW_COUNT = 32
MIN_BUCKETS = 8
"""Lower bound of used buckets.

A table starts with 64.  32 random flows use 25 on average, and fewer than 12 with a probability
below 10^-12.
"""

TupleVariation = Callable[[Tuple, int], Tuple]


def _vary_saddr(side: Tuple, number: int) -> Tuple:
    return replace(side, source=str(ip_address(side.source) + number))


def _vary_daddr(side: Tuple, number: int) -> Tuple:
    return replace(side, destination=str(ip_address(side.destination) + number))


def _vary_sport(side: Tuple, number: int) -> Tuple:
    return replace(side, source_port=side.source_port + number)


def _vary_dport(side: Tuple, number: int) -> Tuple:
    return replace(side, destination_port=side.destination_port + number)


@pytest.mark.clause("SN-2.1")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "vary_field",
    [_vary_saddr, _vary_daddr, _vary_sport, _vary_dport],
    ids=lambda vary_field: vary_field.__name__.removeprefix("_vary_"),
)
def test_flows_differing_in_one_field_spread_over_buckets(
    private_router: Router,
    private_flowmap: int,
    guest_memory: DrgnClient,
    version: int,
    vary_field: TupleVariation,
) -> None:
    """Flows that differ in one field only are spread over the hash buckets, in both directions."""
    router = private_router
    # No flow may expire while the others are added.
    netns.set_sysctls(router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    client, server = router.client.addresses[version], router.server.addresses[version]
    first = Tuple(IPPROTO_UDP, client, server, 21000, 7000)
    tuples = [vary_field(first, number) for number in range(FLOW_COUNT)]
    neighbours = [
        message
        for tuple_ in tuples
        for message in (
            rtnetlink.add_permanent_neigh(router.lan.ifindex, tuple_.source, router.client.mac),
            rtnetlink.add_permanent_neigh(
                router.wan.ifindex, tuple_.destination, router.server.mac
            ),
        )
    ]
    netlink.transact(netlink.NETLINK_ROUTE, neighbours, router.namespace)
    for tuple_ in tuples:
        send_frames(router.client, [build_frame(router.client, router.lan, tuple_)])
        send_frames(router.server, [build_frame(router.server, router.wan, tuple_.reversed())])
    wait_for(
        "the flows to be offloaded", lambda: bpf.flowmap_entry_count(private_flowmap) == FLOW_COUNT
    )

    entries = guest_memory.snoop_table_of(bpf.map_info(private_flowmap).id).entries
    for direction in (0, 1):
        buckets = {entry.bucket_address for entry in entries if entry.direction == direction}
        assert len(buckets) >= MIN_BUCKETS
