# SPDX-License-Identifier: GPL-2.0-only
"""Two nftables tables of different priority, each with a flowtable on the same devices."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.net import flowtable, nftables
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, router_config_id
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

without_source_table = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
_PROTOCOLS = {"web": (IPPROTO_TCP, "tcp"), "voice": (IPPROTO_UDP, "udp")}


def _load_table(router: Router, table: str, priority: int) -> None:
    """Load a table with a flowtable of this priority, for the protocol of the table."""
    nftables.run(
        f"""
        table inet {table} {{
            flowtable ft {{ hook ingress priority {priority}; devices = {{ r0, r1 }}; }}
            chain forward {{
                type filter hook forward priority {priority}; policy accept;
                meta l4proto {_PROTOCOLS[table][1]} ct state established flow add @ft
            }}
        }}
        """,
        router.namespace,
    )


@pytest.mark.clause("SN-2.2", "SN-6.7", "FM-12.1")
@without_source_table
@pytest.mark.parametrize("priorities", [(-10, 10), (10, -10)], ids=["web-first", "voice-first"])
@pytest.mark.parametrize("deleted", _PROTOCOLS, ids="delete-{}".format)
def test_flows_of_two_tables_of_different_priority_are_found(
    private_router: Router,
    private_flowmap: int,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
    priorities: tuple[int, int],
    deleted: str,
) -> None:
    """Both tables' flows are in the map, whatever their priority, until their table is deleted.

    ::

        client --- r0 [router] r1 --- server     table web:   flowtable on { r0, r1 }, for TCP
                                                 table voice: flowtable on { r0, r1 }, for UDP

    bpf_xdp_flow_lookup() asks only the table that has the device longest, here web.
    """
    router = private_router
    for table, priority in zip(_PROTOCOLS, priorities, strict=True):
        _load_table(router, table, priority)
    inside, outside = port_of(router.lan), port_of(router.wan)
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    connections: dict[str, list[Connection]] = {table: [] for table in _PROTOCOLS}
    flows: dict[str, list[Flow]] = {table: [] for table in _PROTOCOLS}
    for table, (protocol, _) in _PROTOCOLS.items():
        for version in (4, 6):
            conn = connect(router, protocol, version, cleanup)
            oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
            connections[table].append(conn)
            entry = conn.wait_offloaded().entry
            flows[table].append(oracle.flow_of_entry(entry, inside, outside))
    oracle.assert_same_flows(
        private_flowmap, router.namespace, [flow for group in flows.values() for flow in group]
    )

    def assert_found(table: str, expected: str) -> None:
        for conn in connections[table]:
            frame = build_frame(router.client, router.lan, conn.tuple)
            found = oracle.lookup_result(both_lookups, frame, inside.ifindex, router.namespace)
            assert found == expected, (table, conn.tuple)

    assert_found("web", "both")
    assert_found("voice", "only the map")

    (remaining,) = set(_PROTOCOLS) - {deleted}
    flowtable.drop_table(deleted, router.namespace)
    for flow in flows[deleted]:
        assert [bpf.lookup_or_none(private_flowmap, key) for key in flow.keys] == [None, None]
    assert_found(deleted, "neither")
    assert_found(remaining, "both")
    for conn in connections[remaining]:
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
    oracle.assert_same_flows(private_flowmap, router.namespace, flows[remaining])
