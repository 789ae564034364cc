# SPDX-License-Identifier: GPL-2.0-only
"""Hosts at the ports of a bridge: a client that moves, and traffic that is only bridged."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netns, nftables
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeNetns, router_config_id
from fixtures.guest.pytest_plugin.require_config import require_br_netfilter
from fixtures.guest.topology import bridge_ports
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    build_frame,
    connect,
)
from selftests.field.offload_ruleset import load_offload_ruleset

bridge_router = pytest.mark.parametrize(
    "private_router",
    [RouterConfig(bridge="plain", tables="none")],
    ids=router_config_id,
    indirect=True,
)

_MOVED = b"after the move"
_ROUNDS = 3


def _send_reply(conn: Connection, payload: bytes) -> None:
    """Send a datagram from the server to the client's address."""
    address = conn.tuple.source, conn.tuple.source_port
    conn.server.sendto(payload, address)


@pytest.mark.clause("FM-12.1", "SN-6.3")
@bridge_router
def test_client_at_other_bridge_port_is_found_there_after_expiry(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """After a client moves to another bridge port, the map shows what the source table does.

    ::

        client --- r0 \\
          |            br0 [router] r1 --- server      devices = { r0, r2, r1 }
          +------- r2 /

    A flow to a bridge port has no route that could become stale, so the table goes on sending
    replies to the old port, and the map's reply value says so.  The client's packets, which
    arrive on the new port, miss in both.  After the flow's expiry the connection is offloaded
    with the new port in the original key and in the reply's value.
    """
    router = private_router
    old, new = map(port_of, bridge_ports.give_client_two_ports(router))
    wan = port_of(router.wan)
    load_offload_ruleset(router, [port.device for port in (old, new, wan)])
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    connections = [connect(router, IPPROTO_UDP, version, cleanup) for version in (4, 6)]
    for conn in connections:
        oracle.assert_forwarded_as_value(conn, private_flowmap, old, wan)

    bridge_ports.move_client(router)
    for conn in connections:
        conn.client.send(_MOVED)  # br0 learns the new port
        assert conn.server.recv(len(_MOVED)) == _MOVED
        flow = oracle.flow_of_entry(_entry(conn), old, wan)
        assert flow.entry.offloaded
        with tx_capture.capture_tx(router.namespace) as sent:
            _send_reply(conn, tx_capture.PAYLOAD)
            value = bpf.lookup(private_flowmap, flow.reply)
            assert value.oifindex == old.ifindex
            assert len(sent(old.device, tx_capture.PAYLOAD)) == 1
            assert sent(new.device, tx_capture.PAYLOAD) == []
        frame = build_frame(router.client, router.lan, conn.tuple)
        for port, expected in ((old, "both"), (new, "neither")):
            found = oracle.lookup_result(both_lookups, frame, port.ifindex, router.namespace)
            assert found == expected, (conn.tuple, port)

    netns.set_sysctls(router.namespace, {"netfilter/nf_flowtable_udp_timeout": 1})
    for conn in connections:
        _send_reply(conn, b"with this packet the shorter timeout applies")
    for conn in connections:
        wait_for("the flow to expire", lambda: not _entry(conn).offloaded)  # noqa: B023
        to_server, to_client = oracle.assert_forwarded_as_value(conn, private_flowmap, new, wan)
        assert (to_server.oifindex, to_client.oifindex) == (wan.ifindex, new.ifindex)
        assert uapi.format_mac(to_client.h_dest) == router.client.mac


def _entry(conn: Connection) -> conntrack.ConntrackEntry:
    entry = conn.conntrack_entry()
    assert entry is not None
    return entry


def _exchange_bridged(router: Router, namespace: str, cleanup: ExitStack) -> list[Connection]:
    """Add a host to the LAN, and exchange messages with it; return the connections."""
    _, host = bridge_ports.add_host(router, namespace)
    beside = Router(router.config, router.namespace, router.client, host, router.lan, router.lan)
    connections = []
    for number, protocol in enumerate((IPPROTO_TCP, IPPROTO_UDP)):
        for version in (4, 6):
            conn = connect(beside, protocol, version, cleanup, server_port=7100 + number)
            for _ in range(_ROUNDS):
                conn.exchange()
            connections.append(conn)
    return connections


@pytest.mark.clause("SN-2.5", "FM-12.1")
@bridge_router
def test_bridged_traffic_without_br_netfilter_is_no_flow(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, make_netns: MakeNetns
) -> None:
    """Hosts at two ports of a bridge talk past conntrack and flowtable; routed flows are found.

    ::

        client ---- r0 \\
                        br0 [router] r1 --- server     devices = { r0, r2, r1 }
        other host - r2 /
    """
    router = private_router
    inside, outside = port_of(router.lan), port_of(router.wan)
    load_offload_ruleset(router, [inside.device, outside.device])  # conntrack's hooks, too
    connections = _exchange_bridged(router, make_netns("own-host"), cleanup)
    add_port = "add flowtable inet fw ft { hook ingress priority 0; devices = { r2 }; }"
    for change in ("", add_port):
        nftables.run(change, router.namespace)
        for conn in connections:
            conn.exchange()
            assert conn.conntrack_entry() is None, (conn.tuple, change)
        known = [entry.original for entry in conntrack.entries(router.namespace)]
        # The router's own messages about multicast groups may have entries.
        assert [one for one in known if one.protocol in (IPPROTO_TCP, IPPROTO_UDP)] == [], change
    flows = []
    for version in (4, 6):
        conn = connect(router, IPPROTO_TCP, version, cleanup)
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
        flows.append(oracle.flow_of_entry(conn.wait_offloaded().entry, inside, outside))
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)


@pytest.mark.clause("SN-2.5", "FM-12.1")
@bridge_router
def test_bridged_traffic_with_br_netfilter_is_no_flow(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, make_netns: MakeNetns
) -> None:
    """With br_netfilter conntrack sees bridged connections, and no table offloads them.

    The topology is that of `test_bridged_traffic_without_br_netfilter_is_no_flow`.  The rule
    ``flow add`` sees the bridged packets, too, but they have no route.
    """
    require_br_netfilter()
    router = private_router
    calls = {f"bridge/bridge-nf-call-{tool}": 1 for tool in ("iptables", "ip6tables")}
    netns.set_sysctls(router.namespace, calls)
    inside, outside = port_of(router.lan), port_of(router.wan)
    load_offload_ruleset(router, [inside.device, outside.device])
    connections = _exchange_bridged(router, make_netns("own-host"), cleanup)
    nftables.run(
        "add flowtable inet fw ft { hook ingress priority 0; devices = { r2 }; }", router.namespace
    )
    for conn in connections:
        assert conn.conntrack_entry() is not None
        oracle.assert_not_offloaded(conn, private_flowmap)
    for version in (4, 6):
        routed = connect(router, IPPROTO_TCP, version, cleanup)
        oracle.assert_forwarded_as_value(routed, private_flowmap, inside, outside)
