# SPDX-License-Identifier: GPL-2.0-only
"""Conntrack zones of one direction or of both, which nft sets: the zone in each direction's key."""

from contextlib import ExitStack
from itertools import product

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow

ZONE = 0x0107
STATEMENTS = {
    "original": (f"ct original zone set {ZONE}", (ZONE, 0)),
    "reply": (f"ct reply zone set {ZONE}", (0, ZONE)),
    "both": (f"ct zone set {ZONE}", (ZONE, ZONE)),
}


def _with_zone(key: uapi.Key, zone: int) -> uapi.Key:
    changed = uapi.Key.from_buffer_copy(key)
    changed.zone = zone
    return changed


def _wait_offloaded(conn: Connection, zones: tuple[int, int]) -> Flow:
    """Exchange messages until the connection is offloaded with these zones; return its flow."""

    def offloaded() -> Flow | None:
        conn.exchange()
        for entry in conntrack.offloaded_entries(conn.router.namespace):
            if entry.original == conn.tuple and entry.zones == zones:
                return connections.flow_from_conntrack(conn.router, entry)
        return None

    return wait_for(f"{conn.tuple} to be offloaded in zones {zones}", offloaded)


@pytest.mark.clause("FM-3.5", "FM-3.19", "FM-5.1")
@pytest.mark.parametrize("zones_of", STATEMENTS)
def test_key_of_each_direction_has_its_own_zone(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
    zones_of: str,
) -> None:
    """A zone of one direction is in that direction's key only, for TCP and UDP, IPv4 and IPv6.

    The other key has zone 0; each key with the other's zone is a miss.  Both values have the
    connection's zone and id.  A map that is created later has the same keys.
    """
    statement, zones = STATEMENTS[zones_of]
    nftables.run(
        f"""
        table inet zones {{
            chain pre {{
                type filter hook prerouting priority raw;
                {statement}
            }}
        }}
        """,
        private_router.namespace,
    )
    cleanup.callback(conntrack.flush, private_router.namespace)
    kinds = product((IPPROTO_TCP, IPPROTO_UDP), (4, 6))
    flows = [
        _wait_offloaded(open_private_connection(*kind, server_port=7000 + kind[1]), zones)
        for kind in kinds
    ]
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_tc"), "by_tc")
    for fd in (private_flowmap, make_flowmap(private_router.namespace)):
        keys = sorted(bytes(key) for flow in flows for key in flow.keys)
        assert sorted(map(bytes, bpf.iterate_keys(fd))) == keys
        for flow in flows:
            assert tuple(key.zone for key in flow.keys) == zones
            for direction, key in enumerate(flow.keys):
                value = bpf.lookup(fd, key)
                assert (value.dir, value.ct_id) == (direction, flow.entry.ct_id)
                assert value.ct_zone == ZONE
                assert probe.lookup(key) is not None
                swapped = (ZONE & 0xFF) << 8 | ZONE >> 8
                for zone in {0, ZONE, ZONE & 0xFF, swapped} - {key.zone}:
                    assert bpf.lookup_or_none(fd, _with_zone(key, zone)) is None, hex(zone)
                    assert probe.lookup(_with_zone(key, zone)) is None, hex(zone)
    for flow in flows:
        value = bpf.lookup(private_flowmap, flow.original)
        assert value.ports.destination == flow.original.ports.destination
