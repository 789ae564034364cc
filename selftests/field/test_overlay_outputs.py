# SPDX-License-Identifier: GPL-2.0-only
"""Routers whose uplink is an overlay: VXLAN, WireGuard, IPsec to one of two servers."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import router_config_id
from fixtures.guest.pytest_plugin.require_config import require_link_kind
from fixtures.guest.topology import ipsec, overlay
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, connect
from selftests.field.offload_ruleset import load_offload_ruleset

_KINDS = [(IPPROTO_TCP, 4), (IPPROTO_UDP, 4), (IPPROTO_TCP, 6), (IPPROTO_UDP, 6)]


@pytest.mark.clause("FM-3.6", "FM-3.13", "FM-12.1")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
@pytest.mark.parametrize(
    ("kind", "symbol", "build"),
    [
        ("vxlan", "CONFIG_VXLAN", overlay.add_vxlan_overlay),
        ("wireguard", "CONFIG_WIREGUARD", overlay.add_wireguard_overlay),
    ],
    ids=["vxlan", "wireguard"],
)
def test_flow_over_overlay_has_keys_on_the_overlay_device(
    private_router: Router,
    private_flowmap: int,
    cleanup: ExitStack,
    kind: str,
    symbol: str,
    build: Callable[[Router], Router],
) -> None:
    """With {r0, r1} there is no flow over an overlay; with its device, keys are on that device.

    ::

        client --- r0 [router] ov0 over r1 ==== VXLAN or WireGuard ==== server

    A WireGuard device has no MAC addresses, so its value has none.
    """
    require_link_kind(kind, symbol, private_router.namespace)
    router = build(private_router)
    load_offload_ruleset(router, ["r0", "r1"])
    connections = [
        connect(router, protocol, version, cleanup, server_port=7000 + number)
        for number, (protocol, version) in enumerate(_KINDS)
    ]
    for conn in connections:
        oracle.assert_not_offloaded(conn, private_flowmap)
    load_offload_ruleset(router, ["r0", overlay.DEVICE])
    inside, outside = port_of(router.lan), port_of(router.wan)
    flows = []
    for conn in connections:
        flow = oracle.flow_of_entry(conn.wait_offloaded().entry, inside, outside)
        flows.append(flow)
        if kind == "vxlan":
            oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
            continue
        to_server, to_client = (bpf.lookup(private_flowmap, key) for key in flow.keys)
        assert (to_server.oifindex, to_client.oifindex) == (overlay.INDEX, inside.ifindex)
        assert bytes(to_server.h_dest) == bytes(6)
        conn.exchange()
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)


@pytest.mark.clause("FM-3.12", "FM-12.1")
def test_flows_into_ipsec_and_beside_it_are_told_apart(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """With one server behind IPsec and one not, each value has its own transmit type.

    ::

        client --- r0 [router] r1 ==== ESP ==== server
                                 \\------------- server's second address

    Replies from IPsec are not offloaded (``skb_sec_path()``), so the flow begins with a packet of
    the client.
    """
    router = private_router
    plain_addresses = {4: "198.51.100.3", 6: "2001:db8:2::3"}
    server = router.server
    prefix = {4: 24, 6: 64}
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [
            rtnetlink.add_address(server.ifindex, host, prefix[version])
            for version, host in plain_addresses.items()
        ],
        server.namespace,
    )
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [
            rtnetlink.add_permanent_neigh(router.wan.ifindex, host, server.mac)
            for host in plain_addresses.values()
        ],
        router.namespace,
    )
    inside, outside = port_of(router.lan), port_of(router.wan)
    flows = []
    for version in (4, 6):
        ipsec.add_esp_tunnel(router, version)
        plain = connect(
            replace(router, server=replace(server, addresses=plain_addresses)),
            IPPROTO_UDP,
            version,
            cleanup,
        )
        to_server, _ = oracle.assert_forwarded_as_value(plain, private_flowmap, inside, outside)
        assert to_server.xmit_type == uapi.XMIT_NEIGH
        flows.append(oracle.flow_of_entry(plain.wait_offloaded().entry, inside, outside))

        secret = connect(router, IPPROTO_UDP, version, cleanup, server_port=7001)
        flow = oracle.flow_of_entry(secret.wait_offloaded().entry, inside, outside)
        flows.append(flow)
        to_server, to_client = (bpf.lookup(private_flowmap, key) for key in flow.keys)
        assert (to_server.xmit_type, to_server.oifindex) == (uapi.XMIT_XFRM, 0)
        assert (to_client.xmit_type, to_client.oifindex) == (uapi.XMIT_NEIGH, inside.ifindex)
        with tx_capture.capture_tx(router.namespace) as sent:
            secret.exchange(tx_capture.PAYLOAD)
            assert sent(outside.device, tx_capture.PAYLOAD) == []
            assert len(sent(inside.device, tx_capture.PAYLOAD)) == 1
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)
