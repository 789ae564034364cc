# SPDX-License-Identifier: GPL-2.0-only
"""Hairpin NAT: a host reaches a server of its own LAN by the router's public address."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.net import netlink, netns, nftables, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeNetns, router_config_id
from fixtures.guest.topology import bridge_ports
from fixtures.guest.topology.client_router_server import (
    DNAT_ADDRESSES,
    Interface,
    Router,
    RouterConfig,
)
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, build_frame, connect

_KINDS = [(IPPROTO_TCP, 4), (IPPROTO_UDP, 4), (IPPROTO_TCP, 6), (IPPROTO_UDP, 6)]
_SECOND_ADDRESSES = {4: "192.0.2.3", 6: "2001:db8:1::3"}


def _load_ruleset(router: Router, lan: str, devices: str, host: Interface) -> None:
    """Load the ruleset of a router with port forwarding to a host of its LAN."""
    nftables.run(
        f"""
        flush ruleset
        table inet fw {{
            flowtable ft {{ hook ingress priority 0; devices = {{ {devices} }}; }}
            chain forward {{
                type filter hook forward priority 0; policy accept;
                meta l4proto {{ tcp, udp }} ct state established flow add @ft
            }}
            chain pre {{
                type nat hook prerouting priority -100;
                ip daddr {DNAT_ADDRESSES[4]} dnat ip to {host.addresses[4]}
                ip6 daddr {DNAT_ADDRESSES[6]} dnat ip6 to {host.addresses[6]}
            }}
            chain post {{
                type nat hook postrouting priority 100;
                iifname "{lan}" oifname "{lan}" masquerade
            }}
        }}
        """,
        router.namespace,
    )
    # The router knows that the hosts could talk directly, and they must not.
    off = {"ipv4/conf/all/send_redirects": 0, f"ipv4/conf/{lan}/send_redirects": 0}
    netns.set_sysctls(router.namespace, off)


def _assert_hairpin_flows(
    router: Router, reply_port: Interface, flowmap: int, load_bpf: LoadBpf, cleanup: ExitStack
) -> None:
    """Require that connections through both translations are found and forwarded as the map says.

    Args:
        router: the router, with the host of the LAN as its server.
        reply_port: the router's port towards that host.
        flowmap: descriptor of the map.
        load_bpf, cleanup: the fixtures.
    """
    inside, outside = port_of(router.lan), port_of(reply_port)
    both_lookups = load_bpf("xdp_both_lookups", flowmap)
    flows = []
    for number, (protocol, version) in enumerate(_KINDS):
        conn = connect(router, protocol, version, cleanup, server_port=7000 + number)
        values = oracle.assert_forwarded_as_value(conn, flowmap, inside, outside)
        assert [value.flags for value in values] == [uapi.F_SNAT | uapi.F_DNAT] * 2
        entry = conn.wait_offloaded().entry
        # To the host the connection comes from the router, to the client from outside.
        assert entry.reply.destination == router.lan.addresses[version]
        assert entry.reply.source == router.server.addresses[version]
        flow = oracle.flow_of_entry(entry, inside, outside)
        flows.append(flow)
        for sender, port, ct_tuple in (
            (router.client, router.lan, entry.original),
            (router.server, reply_port, entry.reply),
        ):
            frame = build_frame(sender, port, ct_tuple)
            found = oracle.lookup_result(both_lookups, frame, port.ifindex, router.namespace)
            assert found == "both", (conn.tuple, port.device)
    oracle.assert_same_flows(flowmap, router.namespace, flows)


@pytest.mark.clause("FM-3.6", "FM-3.12", "FM-4.3", "FM-12.1")
@pytest.mark.parametrize(
    "private_router",
    [RouterConfig(tables="none", nat="dnat")],
    ids=router_config_id,
    indirect=True,
)
def test_hairpin_flow_has_both_keys_on_one_device(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """A connection that enters and leaves by r0 has both keys on r0, and its value leaves there.

    ::

        client 192.0.2.2 --+
                           +-- r0 [router: dnat 203.0.113.9 to 192.0.2.3, masquerade r0 to r0]
        server 192.0.2.3 --+

    The client's link is also the server's: both addresses are on c0.
    """
    router = private_router
    host = replace(router.client, addresses=_SECOND_ADDRESSES)
    prefix = {4: 24, 6: 64}
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [
            rtnetlink.add_address(host.ifindex, address, prefix[version])
            for version, address in host.addresses.items()
        ],
        host.namespace,
    )
    neighbours = [
        rtnetlink.add_permanent_neigh(router.lan.ifindex, address, host.mac)
        for address in host.addresses.values()
    ]
    netlink.transact(netlink.NETLINK_ROUTE, neighbours, router.namespace)
    _load_ruleset(router, "r0", "r0, r1", host)
    _assert_hairpin_flows(
        replace(router, server=host), router.lan, private_flowmap, load_bpf, cleanup
    )


@pytest.mark.clause("FM-3.6", "FM-3.12", "FM-4.3", "FM-12.1")
@pytest.mark.parametrize(
    "private_router",
    [RouterConfig(tables="none", nat="dnat", bridge="plain")],
    ids=router_config_id,
    indirect=True,
)
def test_hairpin_flow_between_bridge_ports_has_keys_on_the_ports(
    private_router: Router,
    private_flowmap: int,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
    make_netns: MakeNetns,
) -> None:
    """A connection between two ports of the bridge has its keys on these ports.

    ::

        client ---------- r0 \\
                              br0 [router: dnat to 192.0.2.9, masquerade br0 to br0]
        server 192.0.2.9 - r2 /
    """
    router = private_router
    port, host = bridge_ports.add_host(router, make_netns("own-host"))
    _load_ruleset(router, "br0", "r0, r1, r2", host)
    _assert_hairpin_flows(replace(router, server=host), port, private_flowmap, load_bpf, cleanup)
