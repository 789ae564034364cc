# SPDX-License-Identifier: GPL-2.0-only
"""Devices of a flowtable that are renamed, moved to another namespace and brought back."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.net import conntrack, flowtable, netlink, nftables, rtnetlink
from fixtures.guest.net.flowtable import INET
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    MakeNetns,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import (
    FLOWTABLE,
    NFT_TABLE,
    Interface,
    Router,
    RouterConfig,
    address_messages,
)
from fixtures.guest.topology.router_port import RouterPort, port_of
from fixtures.guest.topology.settled_links import wait_links_up
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    build_frame,
    connect,
)

without_source_table = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)


def _rename(router: Router, name: str) -> RouterPort:
    """Rename the router's WAN device; return the port with its new name."""
    message = rtnetlink.rename(router.wan.ifindex, name)
    netlink.transact(netlink.NETLINK_ROUTE, [message], router.namespace)
    return RouterPort(name, router.wan.ifindex)


def _load_wildcard_ruleset(router: Router, *devices: str) -> None:
    """Load a ruleset whose flowtable has wildcard devices, which nft may not support."""
    nftables.run(
        """
        flush ruleset
        table inet fw {
            flowtable ft { hook ingress priority 0; }
            chain forward {
                type filter hook forward priority 0; policy accept;
                meta l4proto { tcp, udp } ct state established flow add @ft
            }
        }
        """,
        router.namespace,
    )
    message = flowtable.new_flowtable(INET, NFT_TABLE, FLOWTABLE, devices=devices, exclusive=False)
    flowtable.commit_batch([message], router.namespace)


def _kfunc_result(
    router: Router, both_lookups: BpfObject, conn: Connection, port: RouterPort
) -> str:
    """Return who finds the reply direction on a port: the map, the kfunc or both."""
    entry = conn.conntrack_entry()
    assert entry is not None
    frame = build_frame(router.server, router.wan, entry.reply)
    return oracle.lookup_result(both_lookups, frame, port.ifindex, router.namespace)


@pytest.mark.clause("FM-12.1", "SN-2.1")
def test_flow_of_renamed_device_stays_until_it_ends(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """Renaming a device of the flowtable takes it out of the table, and its flows stay in both.

    ::

        client --- r0 [router] r1, then wan0, then r1 --- server      devices = { r0, r1 }

    While r1 has another name, replies take the slow path, because the table has no hook there.
    Its flows stay, so lookups hit.  New connections are not offloaded until the name is back.
    """
    router = private_router
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    inside, outside = port_of(router.lan), port_of(router.wan)
    connections = [
        connect(router, protocol, version, cleanup, server_port=7000 + protocol)
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
        for version in (4, 6)
    ]
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
    flows = [oracle.flow_of_entry(c.wait_offloaded().entry, inside, outside) for c in connections]

    renamed = _rename(router, "wan0")
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, renamed)
        # No table has the device, so the kfunc asks none.
        found = _kfunc_result(router, both_lookups, conn, renamed)
        assert found == "only the map"
    late = connect(router, IPPROTO_UDP, 4, cleanup, server_port=7100)
    for _ in range(4):
        late.exchange()
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)

    _rename(router, "r1")
    for conn in [*connections, late]:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
        assert _kfunc_result(router, both_lookups, conn, outside) == "both"
    for conn in connections:
        conntrack.delete(conn.tuple, router.namespace)
    flow = oracle.flow_of_entry(late.wait_offloaded().entry, inside, outside)
    oracle.assert_same_flows(private_flowmap, router.namespace, [flow])


@pytest.mark.clause("FM-12.1", "SN-2.1")
@without_source_table
def test_flow_of_renamed_device_that_matches_wildcard_goes_on(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """Renaming a device within a wildcard changes nothing; its flows are forwarded and found.

    ::

        client --- r0 [router] r1, then r-isp --- server              devices = { r* }
    """
    router = private_router
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    _load_wildcard_ruleset(router, "r*")
    inside, outside = port_of(router.lan), port_of(router.wan)
    connections = [connect(router, IPPROTO_UDP, version, cleanup) for version in (4, 6)]
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
    renamed = _rename(router, "r-isp")
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, renamed)
        assert _kfunc_result(router, both_lookups, conn, renamed) == "both"
    late = connect(router, IPPROTO_TCP, 6, cleanup, server_port=7100)
    oracle.assert_forwarded_as_value(late, private_flowmap, inside, renamed)
    flows = [
        oracle.flow_of_entry(conn.wait_offloaded().entry, inside, renamed)
        for conn in [*connections, late]
    ]
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)


@pytest.mark.clause("FM-12.1", "SN-2.1")
@without_source_table
def test_kfunc_loses_device_renamed_between_wildcards_and_map_does_not(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """After a rename from one wildcard to another the table forwards, and the map has the flow.

    ::

        client --- r0 [router] r1, then x1 --- server            devices = { r*, x* }

    bpf_xdp_flow_lookup() does not find it in 7.3: the device joins the table by its new name
    before it leaves by the old one, and then nf_flowtable_by_dev_remove() removes both
    (docs/findings.md).
    """
    router = private_router
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    _load_wildcard_ruleset(router, "r*", "x*")
    inside, outside = port_of(router.lan), port_of(router.wan)
    for version in (4, 6):
        conn = connect(router, IPPROTO_UDP, version, cleanup)
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
        assert _kfunc_result(router, both_lookups, conn, outside) == "both"
        renamed = _rename(router, "x1")
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, renamed)
        found = _kfunc_result(router, both_lookups, conn, renamed)
        assert found == "only the map"
        _rename(router, "r1")
        nftables.run("flush chain inet fw forward", router.namespace)
        conntrack.flush(router.namespace)
        _load_wildcard_ruleset(router, "r*", "x*")


@pytest.mark.clause("FM-12.1", "SN-2.1", "SN-6.6")
@without_source_table
def test_flow_of_device_added_later_is_found_until_its_deletion(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, make_netns: MakeNetns
) -> None:
    """A device that is created later and matches a wildcard has flows; its deletion ends them.

    ::

        client --- r0 \\
                       [router] r1 --- server                devices = { r* }
        guest ---- r2 /                                      r2 comes and goes

    The deletion makes the other devices' routes stale, too, so the table may end their flows; then
    it has the connection again with its next packets.
    """
    router = private_router
    _load_wildcard_ruleset(router, "r*")
    outside = port_of(router.wan)
    staying = connect(router, IPPROTO_TCP, 6, cleanup)
    oracle.assert_forwarded_as_value(staying, private_flowmap, port_of(router.lan), outside)

    guest_router = _add_guest_lan(router, make_netns("own-guest"))
    inside = port_of(guest_router.lan)
    connections = [connect(guest_router, IPPROTO_UDP, version, cleanup) for version in (4, 6)]
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
    flows = [oracle.flow_of_entry(c.wait_offloaded().entry, inside, outside) for c in connections]
    staying_entry = staying.wait_offloaded().entry
    staying_flow = oracle.flow_of_entry(staying_entry, port_of(router.lan), outside)
    oracle.assert_same_flows(private_flowmap, router.namespace, [*flows, staying_flow])

    gone = rtnetlink.delete_link(inside.ifindex)
    netlink.transact(netlink.NETLINK_ROUTE, [gone], router.namespace)
    for flow in flows:
        assert [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys] == [None, None]
    entry = staying.conntrack_entry()
    assert entry is not None
    left = [staying_flow] if entry.offloaded else []
    oracle.assert_same_flows(private_flowmap, router.namespace, left)
    oracle.assert_forwarded_as_value(staying, private_flowmap, port_of(router.lan), outside)
    oracle.assert_same_flows(private_flowmap, router.namespace, [staying_flow])


def _add_guest_lan(router: Router, namespace: str) -> Router:
    """Add the device r2 to a router, with a client behind it; return the router for that client."""
    nets = {4: "192.0.10.", 6: "2001:db8:10::"}
    lan, client = (
        Interface(
            ns, device, index, mac, {version: f"{net}{host}" for version, net in nets.items()}
        )
        for ns, device, index, mac, host in (
            (router.namespace, "r2", 23, "02:00:00:00:00:17", 1),
            (namespace, "g0", 12, "02:00:00:00:00:0c", 2),
        )
    )
    on_router = [
        rtnetlink.add_veth(
            lan.device, lan.ifindex, lan.mac, client.device, client.ifindex, client.mac, namespace
        ),
        rtnetlink.set_up(lan.ifindex),
        *address_messages(lan.ifindex, lan, client),
    ]
    on_client = [
        rtnetlink.set_up(client.ifindex),
        *address_messages(client.ifindex, client, lan),
        *[rtnetlink.add_default_route(host) for host in lan.addresses.values()],
    ]
    netlink.transact(netlink.NETLINK_ROUTE, on_router, router.namespace)
    netlink.transact(netlink.NETLINK_ROUTE, on_client, namespace)
    wait_links_up(router.namespace, lan.ifindex, router.wan.ifindex)
    return replace(router, client=client, lan=lan)


@pytest.mark.clause("SN-2.4", "SN-6.6", "FM-12.1")
def test_flow_after_device_came_back_from_other_namespace_is_found(
    private_router: Router,
    private_flowmap: int,
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
) -> None:
    """Moving r1 to another namespace ends its flows; when it is back, new ones are found.

    ::

        client --- r0 [router] r1 --- server      r1 goes to the client's namespace and comes back

    A map of the other namespace has none of the flows.
    """
    router, other = private_router, private_router.client.namespace
    elsewhere = make_flowmap(other)
    inside, outside = port_of(router.lan), port_of(router.wan)
    connections = [connect(router, IPPROTO_UDP, version, cleanup) for version in (4, 6)]
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
    flows = [oracle.flow_of_entry(c.wait_offloaded().entry, inside, outside) for c in connections]

    away = rtnetlink.move_to_netns(router.wan.ifindex, other)
    netlink.transact(netlink.NETLINK_ROUTE, [away], router.namespace)
    for flow in flows:
        assert [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys] == [None, None]
    assert list(bpf.iterate_keys(private_flowmap)) == []

    back = rtnetlink.move_to_netns(router.wan.ifindex, router.namespace)
    netlink.transact(netlink.NETLINK_ROUTE, [back], other)
    up = [
        rtnetlink.set_up(router.wan.ifindex),
        *address_messages(router.wan.ifindex, router.wan, router.server),
    ]
    netlink.transact(netlink.NETLINK_ROUTE, up, router.namespace)
    wait_links_up(router.namespace, router.wan.ifindex)
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
    flows = [oracle.flow_of_entry(c.wait_offloaded().entry, inside, outside) for c in connections]
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)
    assert list(bpf.iterate_keys(elsewhere)) == []
