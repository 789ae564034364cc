# SPDX-License-Identifier: GPL-2.0-only
"""XDP forwarding by the flow map is equivalent to the kernel's own forwarding."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe
from fixtures.guest.topology.client_router_server import TABLE, Plan, Router
from fixtures.guest.traffic import packet_headers, rx_capture, tx_capture
from fixtures.guest.traffic.connections import (
    TCP_PROTOCOL,
    UDP_PROTOCOL,
    Connection,
    frame,
    send_frames,
)
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(7,)),
    Plan(vlans=(100, 7)),
    Plan(nat="masquerade", vlans=(7,)),
    Plan(bridge="plain"),
]
_AT_MOST_ONE_VLAN = [config for config in ROUTER_CONFIGS if len(config.vlans) <= 1]
_NATIVE_XDP_CONFIGS = [Plan(), Plan(nat="snat+dnat"), Plan(vlans=(100, 7))]
_TTL = 64


def _check_received_headers(
    router: Router, flowmap: int, forwarder: Forwarder, conn: Connection
) -> None:
    """Exchange one payload; compare the headers received at both ends with the flow values."""
    flow = conn.offloaded()
    before = forwarder.fates()[Fate.FORWARDED]
    with (
        rx_capture.frames(router.server) as at_server,
        rx_capture.frames(router.client) as at_client,
    ):
        conn.exchange(tx_capture.PAYLOAD)
        for key, arrived in ((flow.original, at_server), (flow.reply, at_client)):
            (received,) = arrived(tx_capture.PAYLOAD)
            assert packet_headers.carried(received) == packet_headers.promised(
                bpf.lookup(flowmap, key), key.l3proto
            )
            assert packet_headers.hops(received) == _TTL - 1
            assert packet_headers.intact(received)
    assert forwarder.fates()[Fate.FORWARDED] - before >= 2


@pytest.mark.clause("FM-3", "FM-4")
@pytest.mark.parametrize("router", ROUTER_CONFIGS, ids=describe, indirect=True)
@versions
@protocols
def test_packets_arrive_as_the_value_says(
    router: Router,
    flowmap: int,
    connection: Connect,
    cleanup: ExitStack,
    protocol: int,
    version: int,
) -> None:
    """Packets forwarded by generic XDP arrive with the headers that the flow value gives."""
    forwarder = Forwarder(router, flowmap, cleanup)
    conn = connection(protocol, version)
    _check_received_headers(router, flowmap, forwarder, conn)


@pytest.mark.clause("FM-3", "FM-4")
@pytest.mark.parametrize("router", _NATIVE_XDP_CONFIGS, ids=describe, indirect=True)
@versions
@protocols
def test_driver_forwards_as_the_value_says(
    router: Router,
    flowmap: int,
    connection: Connect,
    cleanup: ExitStack,
    protocol: int,
    version: int,
) -> None:
    """Packets forwarded by native XDP, in the driver, arrive with the value's headers."""
    forwarder = Forwarder(router, flowmap, cleanup, native=True)
    conn = connection(protocol, version)
    _check_received_headers(router, flowmap, forwarder, conn)


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize("router", _AT_MOST_ONE_VLAN, ids=describe, indirect=True)
@versions
def test_three_routers_send_the_same_packet(
    router: Router, flowmap: int, connection: Connect, version: int
) -> None:
    """XDP, the flowtable and the stack forward a packet to byte-identical frames."""

    def received_frame() -> bytes:
        with rx_capture.frames(router.server) as arrived:
            send_frames(router.client, [packet])
            (received,) = arrived(b"crafted")
        assert conn.server.recv(1 << 16) == b"crafted"
        return received

    by_path = {}
    with ExitStack() as attached:
        forwarder = Forwarder(router, flowmap, attached)
        conn = connection(UDP_PROTOCOL, version)
        conn.offloaded()
        tag = router.plan.vlans[0] if router.plan.vlans else None
        packet = frame(router.client, router.inside, conn.tuple, vlan=tag)
        before = forwarder.fates()[Fate.FORWARDED]
        by_path["xdp"] = received_frame()
        assert forwarder.fates()[Fate.FORWARDED] == before + 1
    conn.offloaded_anew()
    by_path["flowtable"] = received_frame()
    flowtable.drop_table(TABLE, router.namespace)
    wait_for("conntrack to clear IPS_OFFLOAD", lambda: (e := conn.entry()) and not e.offloaded)
    by_path["stack"] = received_frame()
    assert packet_headers.intact(by_path["stack"])
    assert by_path["xdp"] == by_path["flowtable"] == by_path["stack"]
