# SPDX-License-Identifier: GPL-2.0-only
"""Flowtables that list upper devices: bridges, VLANs, PPP devices and bonds."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.net import netlink, nftables, rtnetlink
from fixtures.guest.net.link_kinds import add_bond
from fixtures.guest.pytest_plugin.plugin_api import router_config_id
from fixtures.guest.pytest_plugin.require_config import require_link_kind
from fixtures.guest.topology import home_router
from fixtures.guest.topology.client_router_server import (
    Router,
    RouterConfig,
    address_messages,
)
from fixtures.guest.topology.router_port import RouterPort, port_of
from fixtures.guest.topology.settled_links import wait_links_up
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow, connect


def _router(config: RouterConfig) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("private_router", [config], ids=router_config_id, indirect=True)


def _load_ruleset(router: Router, *devices: str) -> None:
    """Load a ruleset whose flowtable has these devices."""
    nftables.run(
        f"""
        flush ruleset
        table inet fw {{
            flowtable ft {{
                hook ingress priority 0; devices = {{ {", ".join(devices)} }};
            }}
            chain forward {{
                type filter hook forward priority 0; policy accept;
                ct state established meta l4proto {{ tcp, udp }} flow add @ft
            }}
        }}
        """,
        router.namespace,
    )


def _change_devices(router: Router, command: str, device: str) -> None:
    """Add a device to the flowtable, or delete it from there."""
    hook = f"hook ingress priority 0; devices = {{ {device} }};"
    nftables.run(f"{command} flowtable inet fw ft {{ {hook} }}", router.namespace)


def _connections(router: Router, cleanup: ExitStack) -> list[Connection]:
    """Open a connection of each protocol and IP version."""
    kinds = [(IPPROTO_TCP, 4), (IPPROTO_UDP, 4), (IPPROTO_TCP, 6), (IPPROTO_UDP, 6)]
    return [
        connect(router, protocol, version, cleanup, server_port=7000 + number)
        for number, (protocol, version) in enumerate(kinds)
    ]


def _assert_offloaded_only_with(
    router: Router,
    flowmap: int,
    cleanup: ExitStack,
    ports: tuple[RouterPort, RouterPort],
    *,
    upper: str,
    lower: str,
) -> None:
    """Require that flows appear only once the flowtable has the lower device, too.

    The upper device then makes no difference: the table forwards without it.
    """
    connections = _connections(router, cleanup)
    for conn in connections:
        oracle.assert_not_offloaded(conn, flowmap)
    _change_devices(router, "add", lower)
    flows: list[Flow] = []
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, flowmap, *ports)
        flows.append(oracle.flow_of_entry(conn.wait_offloaded().entry, *ports))
    oracle.assert_same_flows(flowmap, router.namespace, flows)
    _change_devices(router, "delete", upper)
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, flowmap, *ports)
    oracle.assert_same_flows(flowmap, router.namespace, flows)


@pytest.mark.clause("SN-2.5", "FM-3.6", "FM-12.1")
@_router(RouterConfig(bridge="plain", tables="none"))
def test_flowtable_with_bridge_offloads_only_with_its_port(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A flowtable on {br0, r1} has no flow; with r0 added, the flows' keys are on r0.

    ::

        client --- r0 in br0 [router] r1 --- server        devices = { br0, r1 }
    """
    _load_ruleset(private_router, "br0", "r1")
    ports = port_of(private_router.lan), port_of(private_router.wan)
    _assert_offloaded_only_with(
        private_router, private_flowmap, cleanup, ports, upper="br0", lower="r0"
    )


@pytest.mark.clause("SN-2.5", "FM-3.6", "FM-3.7", "FM-12.1")
@_router(RouterConfig(vlans=(5,), tables="none"))
def test_flowtable_with_vlan_offloads_only_with_its_parent(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A flowtable on {r0.v, r1} has no flow; with r0 added, the keys are on r0 with the tag.

    ::

        client --- VLAN 5 --- r0.v on r0 [router] r1 --- server     devices = { r0.v, r1 }
    """
    _load_ruleset(private_router, "r0.v", "r1")
    ports = port_of(private_router.lan, private_router.encap), port_of(private_router.wan)
    assert private_router.encap == ((5, uapi.ETH_P_8021Q),)
    _assert_offloaded_only_with(
        private_router, private_flowmap, cleanup, ports, upper="r0.v", lower="r0"
    )


@pytest.mark.clause("SN-2.5", "FM-3.6", "FM-12.1")
@_router(home_router.CONFIG)
def test_flowtable_with_ppp_device_offloads_only_with_its_carrier(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A flowtable on {r0, ppp0} has no flow; with r1 added, the reply keys are on r1.

    ::

        client --- r0 in br0 [router] r1 --- PPPoE session --- server     devices = { r0, ppp0 }
    """
    router, inside, outside = home_router.build_home_router(
        private_router, cleanup, vlans=(), devices=("r0", "ppp0")
    )
    _assert_offloaded_only_with(
        router, private_flowmap, cleanup, (inside, outside), upper="ppp0", lower="r1"
    )


@pytest.mark.clause("SN-2.5", "FM-3.6", "FM-12.1")
@_router(RouterConfig(tables="none"))
def test_flowtable_with_bond_has_keys_on_the_bond(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A flowtable on {r0, r1} has no flow if r0 is in a bond; with the bond, keys are on it.

    ::

        client --- r0 in bond0 [router] r1 --- server      devices = { r0, r1 }

    The bond is the lowest device that a flowtable looks at: it chooses the slave for each packet.
    """
    router = private_router
    require_link_kind("bond", "CONFIG_BONDING", router.namespace)
    bond = RouterPort("bond0", 901)
    lan, client = router.lan, router.client
    # An interface can only join a bond while it has no address and is down.
    on_router = [
        rtnetlink.delete_link(lan.ifindex),
        rtnetlink.add_veth(
            lan.device,
            lan.ifindex,
            lan.mac,
            client.device,
            client.ifindex,
            client.mac,
            client.namespace,
        ),
        add_bond(bond.device, bond.ifindex, lan.mac),
        rtnetlink.set_master(lan.ifindex, bond.ifindex),
        rtnetlink.set_up(bond.ifindex),
        *address_messages(bond.ifindex, lan, client),
    ]
    on_client = [
        rtnetlink.set_up(client.ifindex),
        *address_messages(client.ifindex, client, lan),
        *[rtnetlink.add_default_route(host) for host in lan.addresses.values()],
    ]
    netlink.transact(netlink.NETLINK_ROUTE, on_router, router.namespace)
    netlink.transact(netlink.NETLINK_ROUTE, on_client, client.namespace)
    wait_links_up(router.namespace, lan.ifindex, bond.ifindex, router.wan.ifindex)
    _load_ruleset(router, "r0", "r1")
    ports = bond, port_of(router.wan)
    _assert_offloaded_only_with(router, private_flowmap, cleanup, ports, upper="r0", lower="bond0")
