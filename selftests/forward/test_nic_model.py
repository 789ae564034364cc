# SPDX-License-Identifier: GPL-2.0-only
"""A NIC model programmed from the flow map forwards exactly as the kernel does."""

import pytest

from fixtures.guest.net import conntrack, ethtool
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL
from fixtures.guest.traffic.nic_model import Nic

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(100, 7)),
    Plan(nat="snat+dnat", bridge="vlan"),
]
_BEFORE_OFFLOAD = b"before there is a flow"


@pytest.mark.clause("FM-3", "FM-4", "FM-6")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=describe, indirect=True)
@versions
@protocols
def test_card_programmed_by_the_map_does_what_the_kernel_does(
    router: Router, flowmap: int, connection: Connect, protocol: int, version: int
) -> None:
    """The NIC model's output device and frame equal the kernel's for every offloaded flow.

    Without a flow in the map, before the offload and after ``conntrack -D``, it has no entry.
    """
    for host in (router.client, router.server):
        ethtool.compute_checksums(host.device, host.namespace)
    nic = Nic(flowmap)
    nic.learn()
    conn = connection(protocol, version)
    with (
        rx_capture.frames(router.inside) as from_client,
        rx_capture.frames(router.outside) as from_server,
        rx_capture.frames(router.client) as at_client,
        rx_capture.frames(router.server) as at_server,
    ):
        conn.exchange(_BEFORE_OFFLOAD)
        assert nic.forward(from_client(_BEFORE_OFFLOAD)[0], router.inside.index) is None

        conn.offloaded()
        nic.learn()
        assert len(nic) == 2
        conn.exchange(tx_capture.PAYLOAD)
        directions = (
            (from_client, router.inside, router.outside, at_server),
            (from_server, router.outside, router.inside, at_client),
        )
        for received, in_port, out_port, forwarded in directions:
            (ingress,), (egress,) = received(tx_capture.PAYLOAD), forwarded(tx_capture.PAYLOAD)
            assert nic.forward(ingress, in_port.index) == (out_port.index, egress)

        conntrack.delete(conn.tuple, router.namespace)
        nic.learn()
        assert len(nic) == 0
