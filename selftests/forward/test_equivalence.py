# SPDX-License-Identifier: GPL-2.0-only
"""What the program forwards arrives as the kernel's own forwarding would have sent it."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.fixtures import Connect, describe
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
PLANS = [
    Plan(),
    Plan(nat="masquerade"),
    Plan(nat="snat+dnat"),
    Plan(vlans=(7,)),
    Plan(vlans=(100, 7)),
    Plan(nat="masquerade", vlans=(7,)),
    Plan(bridge="plain"),
]
_ONE_TAG = [plan for plan in PLANS if len(plan.vlans) <= 1]
_IN_DRIVERS = [Plan(), Plan(nat="snat+dnat"), Plan(vlans=(100, 7))]
_TTL = 64


def _require_arrivals_as_the_value_says(
    router: Router, flowmap: int, forwarder: Forwarder, talk: Connection
) -> None:
    flow = talk.offloaded()
    before = forwarder.fates()[Fate.FORWARDED]
    with (
        rx_capture.frames(router.server) as at_server,
        rx_capture.frames(router.client) as at_client,
    ):
        talk.exchange(tx_capture.PAYLOAD)
        for key, arrived in ((flow.original, at_server), (flow.reply, at_client)):
            (received,) = arrived(tx_capture.PAYLOAD)
            assert packet_headers.carried(received) == packet_headers.promised(
                bpf.lookup(flowmap, key), key.l3proto
            )
            assert packet_headers.hops(received) == _TTL - 1
            assert packet_headers.intact(received)
    assert forwarder.fates()[Fate.FORWARDED] - before >= 2


@pytest.mark.clause("FM-3", "FM-4")
@pytest.mark.parametrize("router", PLANS, ids=describe, indirect=True)
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
    forwarder = Forwarder(router, flowmap, cleanup)
    talk = connection(protocol, version)
    _require_arrivals_as_the_value_says(router, flowmap, forwarder, talk)


@pytest.mark.clause("FM-3", "FM-4")
@pytest.mark.parametrize("router", _IN_DRIVERS, ids=describe, indirect=True)
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
    """In the devices' drivers, where it is at home: no packet buffer of the stack's."""
    forwarder = Forwarder(router, flowmap, cleanup, native=True)
    talk = connection(protocol, version)
    _require_arrivals_as_the_value_says(router, flowmap, forwarder, talk)


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize("router", _ONE_TAG, ids=describe, indirect=True)
@versions
def test_three_routers_send_the_same_packet(
    router: Router, flowmap: int, connection: Connect, version: int
) -> None:
    """By the program, by the flow table, and by the stack: octet for octet."""

    def arrives() -> bytes:
        with rx_capture.frames(router.server) as arrived:
            send_frames(router.client, [packet])
            (received,) = arrived(b"crafted")
        assert talk.server.recv(1 << 16) == b"crafted"
        return received

    seen = {}
    with ExitStack() as attached:
        forwarder = Forwarder(router, flowmap, attached)
        talk = connection(UDP_PROTOCOL, version)
        talk.offloaded()
        tag = router.plan.vlans[0] if router.plan.vlans else None
        packet = frame(router.client, router.inside, talk.tuple, vlan=tag)
        before = forwarder.fates()[Fate.FORWARDED]
        seen["program"] = arrives()
        assert forwarder.fates()[Fate.FORWARDED] == before + 1
    talk.offloaded_anew()
    seen["flow table"] = arrives()
    flowtable.drop_table(TABLE, router.namespace)
    wait_for("the flow to be the stack's", lambda: (e := talk.entry()) and not e.offloaded)
    seen["stack"] = arrives()
    assert packet_headers.intact(seen["stack"])
    assert seen["program"] == seen["flow table"] == seen["stack"]
