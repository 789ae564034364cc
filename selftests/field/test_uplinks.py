# SPDX-License-Identifier: GPL-2.0-only
"""A router with two uplinks, which policy routing chooses by the packet's mark."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, router_config_id
from fixtures.guest.pytest_plugin.require_config import require_policy_routing
from fixtures.guest.topology import two_uplinks
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    Flow,
    build_frame,
    connect,
)

two_uplink_router = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def _assert_leaves_by(
    conn: Connection, flowmap: int, mark: int, uplink: two_uplinks.Uplink
) -> Flow:
    """Require that a connection is forwarded by an uplink, as its values say; return its flow."""
    router, version = conn.router, 6 if ":" in conn.tuple.source else 4
    inside, outside = port_of(router.lan), port_of(uplink.port)
    to_server, to_client = oracle.assert_forwarded_as_value(conn, flowmap, inside, outside)
    assert (to_server.ct_mark, to_client.ct_mark) == (mark, mark)
    source = uapi.format_address(to_server.src, conn.tuple.family)
    assert source == uplink.port.addresses[version]
    macs = uapi.format_mac(to_server.h_source), uapi.format_mac(to_server.h_dest)
    assert macs == (uplink.port.mac, uplink.gateway.mac)
    return oracle.flow_of_entry(conn.wait_offloaded().entry, inside, outside)


@pytest.mark.clause("FM-3.12", "FM-3.13", "FM-3.19", "FM-4.3", "FM-12.1")
@two_uplink_router
@versions
def test_flow_leaves_by_uplink_of_its_mark(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, version: int
) -> None:
    """Each value has the uplink, gateway, source address and mark of its connection.

    ::

                            r1 --- gateway 1 (mark 1)
        client --- r0 [router]                         > remote host
                            r2 --- gateway 2 (mark 2)

    Two connections a mark, TCP and UDP, are offloaded at once.
    """
    require_policy_routing(version, private_router.namespace)
    router, uplinks = two_uplinks.add_second_uplink(private_router, version)
    flows = []
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        for mark, port in two_uplinks.PORTS.items():
            conn = connect(router, protocol, version, cleanup, server_port=port)
            flows.append(_assert_leaves_by(conn, private_flowmap, mark, uplinks[mark]))
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)


@pytest.mark.clause("SN-6.5", "FM-3.12")
@two_uplink_router
@versions
@pytest.mark.parametrize("failed", [1, 2], ids=["uplink-1", "uplink-2"])
def test_flow_of_replaced_uplink_ends_and_the_other_goes_on(
    private_router: Router,
    private_flowmap: int,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
    version: int,
    failed: int,
) -> None:
    """After ``ip route replace`` to the other gateway, new flows leave there, in map and wire.

    ::

                            r1 --- gateway 1
        client --- r0 [router]               > remote host       one uplink fails over
                            r2 --- gateway 2

    The key of the replaced route misses at once; the kfunc may still find the flow, which the table
    would not forward any more.  Its connection has the address of the failed uplink, so
    masquerade drops it with its next packet (``nf_nat_oif_changed()``), and the flow that the
    table adds for that packet is never found.  The client's next packets are a new connection
    over the other uplink.  The connection that was there already goes on.
    """
    require_policy_routing(version, private_router.namespace)
    router, uplinks = two_uplinks.add_second_uplink(private_router, version)
    other = 3 - failed
    connections = {
        mark: connect(router, IPPROTO_UDP, version, cleanup, server_port=port)
        for mark, port in two_uplinks.PORTS.items()
    }
    flows = {
        mark: _assert_leaves_by(conn, private_flowmap, mark, uplinks[mark])
        for mark, conn in connections.items()
    }

    two_uplinks.replace_default_route(router, version, failed, uplinks[other])
    assert bpf.lookup_or_none(private_flowmap, flows[failed].original) is None
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    frame = build_frame(router.client, router.lan, connections[failed].tuple)
    found = oracle.lookup_result(both_lookups, frame, router.lan.ifindex, router.namespace)
    # The kfunc finds it until garbage collection has removed it.
    assert found in ("only the kfunc", "neither")

    connections[failed].client.send(b"dropped by masquerade")
    for key in flows[failed].keys:
        assert bpf.lookup_or_none(private_flowmap, key) is None
    new = _assert_leaves_by(connections[failed], private_flowmap, failed, uplinks[other])
    assert new.entry.ct_id != flows[failed].entry.ct_id
    assert bpf.lookup_or_none(private_flowmap, flows[failed].reply) is None

    # In IPv4 a changed route makes every cached route of the namespace stale, in IPv6 only its own.
    if version == 4:
        connections[other].wait_reoffloaded()
    same = _assert_leaves_by(connections[other], private_flowmap, other, uplinks[other])
    assert same.entry.ct_id == flows[other].entry.ct_id
    oracle.assert_same_flows(private_flowmap, router.namespace, [new, same])
