# SPDX-License-Identifier: GPL-2.0-only
"""The map and notifications suffice to program a card: it never disagrees with the kernel."""

import pytest

from fixtures.guest.net import conntrack, ethtool
from fixtures.guest.pytest_plugin.fixtures import Connect, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL
from fixtures.guest.traffic.nic_model import Nic

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PLANS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(100, 7)),
    Plan(nat="snat+dnat", bridge="vlan"),
]
_FIRST = b"before there is a flow"


@pytest.mark.clause("FM-3", "FM-4", "FM-6")
@pytest.mark.parametrize("router", PLANS, ids=describe, indirect=True)
@versions
@protocols
def test_card_programmed_by_the_map_does_what_the_kernel_does(
    router: Router, flowmap: int, connection: Connect, protocol: int, version: int
) -> None:
    for host in (router.client, router.server):
        ethtool.compute_checksums(host.device, host.namespace)
    card = Nic(flowmap)
    card.learn()
    talk = connection(protocol, version)
    with (
        rx_capture.frames(router.inside) as from_client,
        rx_capture.frames(router.outside) as from_server,
        rx_capture.frames(router.client) as at_client,
        rx_capture.frames(router.server) as at_server,
    ):
        talk.exchange(_FIRST)
        assert card.forward(from_client(_FIRST)[0], router.inside.index) is None

        talk.offloaded()
        card.learn()
        assert len(card) == 2
        talk.exchange(tx_capture.PAYLOAD)
        ways = (
            (from_client, router.inside, router.outside, at_server),
            (from_server, router.outside, router.inside, at_client),
        )
        for comes, by, out, goes in ways:
            (before,), (after,) = comes(tx_capture.PAYLOAD), goes(tx_capture.PAYLOAD)
            assert card.forward(before, by.index) == (out.index, after)

        conntrack.delete(talk.tuple, router.namespace)
        card.learn()
        assert len(card) == 0
