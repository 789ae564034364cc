# SPDX-License-Identifier: GPL-2.0-only
"""A NIC model programmed from the flow map forwards exactly as the kernel does."""

import pytest

from fixtures.guest.net import conntrack, ethtool
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP
from fixtures.guest.traffic.flowmap_nic_model import NicModel

protocols = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [
    RouterConfig(),
    RouterConfig(nat="masquerade"),
    RouterConfig(nat="snat+dnat"),
    RouterConfig(vlans=(100, 7)),
    RouterConfig(nat="snat+dnat", bridge="vlan"),
]
_BEFORE_OFFLOAD = b"before there is a flow"


@pytest.mark.clause("FM-3.20", "FM-4.6", "FM-6.1")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=router_config_id, indirect=True)
@versions
@protocols
def test_nic_programmed_from_map_forwards_like_kernel(
    router: Router, flowmap: int, open_connection: OpenConnection, protocol: int, version: int
) -> None:
    """The NIC model's output device and frame equal the kernel's for every offloaded flow.

    Without a flow in the map, before the offload and after ``conntrack -D``, it has no entry.
    """
    for host in (router.client, router.server):
        ethtool.disable_tx_checksum_offload(host.device, host.namespace)
    nic = NicModel(flowmap)
    nic.sync_from_map()
    conn = open_connection(protocol, version)
    with (
        rx_capture.capture_rx(router.lan) as from_client,
        rx_capture.capture_rx(router.wan) as from_server,
        rx_capture.capture_rx(router.client) as at_client,
        rx_capture.capture_rx(router.server) as at_server,
    ):
        conn.exchange(_BEFORE_OFFLOAD)
        assert nic.forward(from_client(_BEFORE_OFFLOAD)[0], router.lan.ifindex) is None

        conn.wait_offloaded()
        nic.sync_from_map()
        assert len(nic) == 2
        conn.exchange(tx_capture.PAYLOAD)
        directions = (
            (from_client, router.lan, router.wan, at_server),
            (from_server, router.wan, router.lan, at_client),
        )
        for received, in_port, out_port, forwarded in directions:
            (ingress,), (egress,) = received(tx_capture.PAYLOAD), forwarded(tx_capture.PAYLOAD)
            assert nic.forward(ingress, in_port.ifindex) == (out_port.ifindex, egress)

        conntrack.delete(conn.tuple, router.namespace)
        nic.sync_from_map()
        assert len(nic) == 0
