# SPDX-License-Identifier: GPL-2.0-only
"""Conntrack zones of one direction: ``ct original zone`` and ``ct reply zone``."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, nftables, policy_routing, rtnetlink
from fixtures.guest.net.conntrack import ConntrackEntry
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, router_config_id
from fixtures.guest.topology.client_router_server import (
    Interface,
    Router,
    RouterConfig,
    address_messages,
)
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.topology.settled_links import wait_links_up
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, connect

without_source_table = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
_CLIENT_PORT = 40010


def _offloaded_entry(conn: Connection, zones: tuple[int, int]) -> ConntrackEntry:
    """Exchange messages until a connection with these zones is offloaded; return its entry."""

    def offloaded() -> ConntrackEntry | None:
        conn.exchange()
        for entry in conntrack.offloaded_entries(conn.router.namespace):
            if (entry.original, entry.zones) == (conn.tuple, zones):
                return entry
        return None

    return wait_for(f"{conn.tuple} to be offloaded in zones {zones}", offloaded)


@pytest.mark.clause("FM-3.5", "FM-5.1")
@without_source_table
@pytest.mark.parametrize("way", ["original", "reply"])
def test_zone_of_one_direction_is_in_the_key_of_that_direction(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, way: str
) -> None:
    """A zone of one direction is in that direction's key; the other key has the default zone.

    ::

        client --- r0 [router, ct original zone 7 or ct reply zone 7] r1 --- server
    """
    zone = 7
    router = private_router
    nftables.run(
        f"""
        flush ruleset
        table inet fw {{
            flowtable ft {{ hook ingress priority 0; devices = {{ r0, r1 }}; }}
            chain pre {{
                type filter hook prerouting priority raw;
                ct {way} zone set {zone}
            }}
            chain forward {{
                type filter hook forward priority 0; policy accept;
                meta l4proto {{ tcp, udp }} ct state established flow add @ft
            }}
        }}
        """,
        router.namespace,
    )
    cleanup.callback(conntrack.flush, router.namespace)
    zones = (zone, 0) if way == "original" else (0, zone)
    inside, outside = port_of(router.lan), port_of(router.wan)
    flows = []
    for number, (protocol, version) in enumerate(
        [(IPPROTO_TCP, 4), (IPPROTO_UDP, 4), (IPPROTO_TCP, 6), (IPPROTO_UDP, 6)]
    ):
        conn = connect(router, protocol, version, cleanup, server_port=7000 + number)
        entry = _offloaded_entry(conn, zones)
        values = oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside, entry)
        assert {value.ct_zone for value in values} == {zone}
        flow = oracle.flow_of_entry(entry, inside, outside)
        assert tuple(key.zone for key in flow.keys) == zones
        for key in flow.keys:
            for other_zone in {0, zone, zone << 8} - {key.zone}:
                other = uapi.Key.from_buffer_copy(key)
                other.zone = other_zone
                assert bpf.lookup_or_none(private_flowmap, other) is None, (key, other_zone)
        flows.append(flow)
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)


def _add_second_lan(router: Router, namespace: str) -> tuple[Interface, Router]:
    """Add a second LAN with the first one's addresses; return its port, and the router for it."""
    addresses = {4: router.lan.addresses[4]}
    port = Interface(router.namespace, "r2", 23, "02:00:00:00:00:17", addresses)
    client = Interface(namespace, "c2", 12, "02:00:00:00:00:0c", {4: router.client.addresses[4]})
    on_router = [
        rtnetlink.add_veth(
            port.device,
            port.ifindex,
            port.mac,
            client.device,
            client.ifindex,
            client.mac,
            client.namespace,
        ),
        rtnetlink.set_up(port.ifindex),
        *address_messages(port.ifindex, port, client),
    ]
    for mark, lan in ((1, router.lan), (2, port)):
        table = 100 + mark
        # The client itself is the gateway, so that its link has a route in a table of its own.
        on_router += [
            policy_routing.replace_default_route(client.addresses[4], lan.ifindex, table),
            policy_routing.add_mark_rule(4, priority=table, mark=mark, table=table),
        ]
    on_client = [
        rtnetlink.set_up(client.ifindex),
        *address_messages(client.ifindex, client, port),
        rtnetlink.add_default_route(port.addresses[4]),
    ]
    netlink.transact(netlink.NETLINK_ROUTE, on_router, router.namespace)
    netlink.transact(netlink.NETLINK_ROUTE, on_client, namespace)
    wait_links_up(router.namespace, router.lan.ifindex, router.wan.ifindex, port.ifindex)
    return port, replace(router, client=client, lan=port)


@pytest.mark.clause("SN-10.1", "FM-3.5", "FM-4.3", "FM-12.1")
@without_source_table
def test_clients_with_same_address_in_two_lans_are_two_flows(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, make_netns: MakeNetns
) -> None:
    """Equal tuples of two LANs are two flows; each is found with its zone and its own NAT.

    ::

        client 192.0.2.2:40010 --- r0 \\
                                       [router, masquerade] r1 --- server 198.51.100.2:7000
        client 192.0.2.2:40010 --- r2 /

    The LAN is the zone of the original direction; replies are in the default zone and are routed
    by the connection's mark.  The end of one connection leaves the other one.
    """
    router = private_router
    port, second_router = _add_second_lan(router, make_netns("own-second-lan"))
    nftables.run(
        """
        flush ruleset
        table inet fw {
            flowtable ft { hook ingress priority 0; devices = { r0, r1, r2 }; }
            chain zones {
                type filter hook prerouting priority raw;
                iifname "r0" ct original zone set 1
                iifname "r2" ct original zone set 2
            }
            chain marks {
                type filter hook prerouting priority mangle;
                iifname "r0" ct mark set 1
                iifname "r2" ct mark set 2
                iifname "r1" meta mark set ct mark
            }
            chain forward {
                type filter hook forward priority 0; policy accept;
                meta l4proto { tcp, udp } ct state established flow add @ft
            }
            chain post {
                type nat hook postrouting priority 100;
                oifname "r1" masquerade
            }
        }
        """,
        router.namespace,
    )
    cleanup.callback(conntrack.flush, router.namespace)
    outside = port_of(router.wan)
    flows = []
    for zone, lan_router, lan in ((1, router, router.lan), (2, second_router, port)):
        conn = connect(lan_router, IPPROTO_TCP, 4, cleanup, client_port=_CLIENT_PORT)
        entry = _offloaded_entry(conn, (zone, 0))
        inside = port_of(lan)
        _, to_client = oracle.assert_forwarded_as_value(
            conn, private_flowmap, inside, outside, entry
        )
        assert uapi.format_mac(to_client.h_dest) == lan_router.client.mac
        flows.append(oracle.flow_of_entry(entry, inside, outside))
    first, second = flows
    assert first.entry.original == second.entry.original
    assert first.entry.reply != second.entry.reply
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)

    conntrack.delete(first.entry.original, router.namespace, zone=1)
    assert [bpf.lookup_or_none(private_flowmap, key) for key in first.keys] == [None, None]
    oracle.assert_same_flows(private_flowmap, router.namespace, [second])
