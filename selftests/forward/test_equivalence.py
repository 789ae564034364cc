# SPDX-License-Identifier: GPL-2.0-only
"""XDP forwarding by the flow map is equivalent to the kernel's own forwarding."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import NFT_TABLE, Router, RouterConfig
from fixtures.guest.traffic import headers_from_value, rx_capture, tx_capture
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    build_frame,
    send_frames,
)
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [
    RouterConfig(),
    RouterConfig(nat="masquerade"),
    RouterConfig(nat="snat+dnat"),
    RouterConfig(vlans=(7,)),
    RouterConfig(vlans=(100, 7)),
    RouterConfig(nat="masquerade", vlans=(7,)),
    RouterConfig(bridge="plain"),
]
_AT_MOST_ONE_VLAN = [config for config in ROUTER_CONFIGS if len(config.vlans) <= 1]
_NATIVE_XDP_CONFIGS = [RouterConfig(), RouterConfig(nat="snat+dnat"), RouterConfig(vlans=(100, 7))]
_TTL = 64
# A late ACK of a TCP connection would count as a forwarded packet of the next one.
_UDP_FIRST = (IPPROTO_UDP, IPPROTO_TCP)


def _check_received_headers(
    router: Router, flowmap: int, forwarder: XdpForwarder, conn: Connection
) -> None:
    """Exchange one payload; compare the headers received at both ends with the flow values."""
    flow = conn.wait_offloaded()
    before = forwarder.result_counts()[ForwardResult.FORWARDED]
    with (
        rx_capture.capture_rx(router.server) as at_server,
        rx_capture.capture_rx(router.client) as at_client,
    ):
        conn.exchange(tx_capture.PAYLOAD)
        for key, arrived in ((flow.original, at_server), (flow.reply, at_client)):
            (received,) = arrived(tx_capture.PAYLOAD)
            expected = headers_from_value.headers_from_value(bpf.lookup(flowmap, key), key.l3proto)
            assert headers_from_value.headers_from_frame(received) == expected, conn.tuple
            assert headers_from_value.hop_limit(received) == _TTL - 1, conn.tuple
            assert headers_from_value.checksums_valid(received), conn.tuple
    assert forwarder.result_counts()[ForwardResult.FORWARDED] - before >= 2, conn.tuple


@pytest.mark.clause("FM-3.11", "FM-3.12", "FM-3.13", "FM-3.20", "FM-4.7")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=router_config_id, indirect=True)
def test_packet_forwarded_by_generic_xdp_matches_value(
    router: Router, flowmap: int, open_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """Packets forwarded by generic XDP arrive with the headers that the flow value gives."""
    forwarder = XdpForwarder(router, flowmap, cleanup)
    for protocol in _UDP_FIRST:
        for version in (4, 6):
            conn = open_connection(protocol, version)
            _check_received_headers(router, flowmap, forwarder, conn)


@pytest.mark.clause("FM-3.11", "FM-3.12", "FM-3.13", "FM-3.20", "FM-4.7")
@pytest.mark.parametrize("router", _NATIVE_XDP_CONFIGS, ids=router_config_id, indirect=True)
def test_packet_forwarded_by_native_xdp_matches_value(
    router: Router, flowmap: int, open_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """Packets forwarded by native XDP, in the driver, arrive with the value's headers."""
    forwarder = XdpForwarder(router, flowmap, cleanup, native=True)
    for protocol in _UDP_FIRST:
        for version in (4, 6):
            conn = open_connection(protocol, version)
            _check_received_headers(router, flowmap, forwarder, conn)


@pytest.mark.clause("FM-3.20")
@pytest.mark.parametrize("router", _AT_MOST_ONE_VLAN, ids=router_config_id, indirect=True)
@versions
def test_packet_by_xdp_flowtable_and_stack_is_identical(
    router: Router, flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """XDP, the flowtable and the stack forward a packet to byte-identical frames."""

    def received_frame() -> bytes:
        with rx_capture.capture_rx(router.server) as arrived:
            send_frames(router.client, [packet])
            (received,) = arrived(b"crafted")
        assert conn.server.recv(1 << 16) == b"crafted"
        return received

    by_path = {}
    with ExitStack() as attached:
        forwarder = XdpForwarder(router, flowmap, attached)
        conn = open_connection(IPPROTO_UDP, version)
        conn.wait_offloaded()
        tag = router.config.vlans[0] if router.config.vlans else None
        packet = build_frame(router.client, router.lan, conn.tuple, vlan=tag)
        before = forwarder.result_counts()[ForwardResult.FORWARDED]
        by_path["xdp"] = received_frame()
        assert forwarder.result_counts()[ForwardResult.FORWARDED] == before + 1
    conn.wait_reoffloaded()
    by_path["flowtable"] = received_frame()
    flowtable.drop_table(NFT_TABLE, router.namespace)
    wait_for(
        "conntrack to clear IPS_OFFLOAD", lambda: (e := conn.conntrack_entry()) and not e.offloaded
    )
    by_path["stack"] = received_frame()
    assert headers_from_value.checksums_valid(by_path["stack"])
    assert by_path["xdp"] == by_path["flowtable"] == by_path["stack"]
