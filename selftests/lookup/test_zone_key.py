# SPDX-License-Identifier: GPL-2.0-only
"""The conntrack zone in the key: equal tuples in several zones are separate entries."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables, tc
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import act_ct_offload, connections
from fixtures.guest.traffic.act_ct_offload import DSCP_CS1, OTHER_ZONE, ZONE
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow

ZONES = (ZONE, OTHER_ZONE)
_LARGEST_ZONE = 0xFFFF

without_nft_flowtable = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
each_protocol = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])


def _with_zone(key: uapi.Key, zone: int) -> uapi.Key:
    changed = uapi.Key.from_buffer_copy(key)
    changed.zone = zone
    return changed


def _offload_in_both_zones(conn: Connection) -> dict[int, list[uapi.Key]]:
    """Offload one pair of sockets in two zones; return the keys by zone.

    One connection a zone: conntrack zones separate equal tuples.
    """
    namespace = conn.router.namespace
    tc.add_act_ct(["r0", "r1"], ZONE, namespace)
    tc.add_act_ct(["r0", "r1"], OTHER_ZONE, namespace, dscp=DSCP_CS1)
    keys = {ZONE: act_ct_offload.wait_offloaded(conn, ZONE)}
    conn.set_dscp(DSCP_CS1)
    keys[OTHER_ZONE] = act_ct_offload.wait_offloaded(conn, OTHER_ZONE)
    assert act_ct_offload.is_offloaded(conn, ZONE)
    return keys


def _ct_ids(namespace: str) -> dict[int, int]:
    """Return the conntrack id of the offloaded connection of each zone."""
    return {entry.zone: entry.ct_id for entry in conntrack.offloaded_entries(namespace)}


@pytest.mark.clause("SN-10.1", "SN-3.4", "FM-3.5", "FM-4.6", "FM-4.7", "FM-6.1", "FM-6.3")
@without_nft_flowtable
@each_version
def test_tuple_in_two_zones_is_found_in_each(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    version: int,
) -> None:
    """Each zone's connection is found, in both directions, by its own key and by every reader."""
    keys = _offload_in_both_zones(open_private_connection(IPPROTO_UDP, version))
    all_keys = sorted(bytes(key) for zone in ZONES for key in keys[zone])
    ct_ids = _ct_ids(private_router.namespace)
    assert ct_ids[ZONE] != ct_ids[OTHER_ZONE]
    # The first map got the flows when they were added, the second when it was created.
    for fd in (private_flowmap, make_flowmap(private_router.namespace)):
        probe = LookupProbe(load_bpf("lookup_probe", fd, "by_xdp"), "by_xdp")
        for zone in ZONES:
            for direction, key in enumerate(keys[zone]):
                for value in (bpf.lookup(fd, key), probe.lookup(key)):
                    assert value is not None
                    found = (value.dir, value.ct_zone, value.ct_id)
                    assert found == (direction, zone, ct_ids[zone])
        assert sorted(map(bytes, bpf.iterate_keys(fd))) == all_keys
        pairs, _, ended = bpf.lookup_batch(fd, len(all_keys) + 1)
        assert ended
        assert sorted(bytes(key) for key, _ in pairs) == all_keys
        assert {bytes(key): value.ct_zone for key, value in pairs} == {
            bytes(key): zone for zone in ZONES for key in keys[zone]
        }


@pytest.mark.clause("SN-10.1", "SN-6.4")
@without_nft_flowtable
@each_version
@pytest.mark.parametrize("first", ZONES, ids="delete-zone-{}-first".format)
def test_tuple_in_two_zones_ends_in_each_alone(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
    first: int,
) -> None:
    """The end of one zone's connection makes only that zone's keys miss."""
    conn = open_private_connection(IPPROTO_UDP, version)
    keys = _offload_in_both_zones(conn)
    last = ZONE + OTHER_ZONE - first
    conntrack.delete(conn.tuple, private_router.namespace, zone=first)
    assert [bpf.lookup_or_none(private_flowmap, key) for key in keys[first]] == [None, None]
    assert [bpf.lookup(private_flowmap, key).dir for key in keys[last]] == [0, 1]
    assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == sorted(map(bytes, keys[last]))
    conntrack.delete(conn.tuple, private_router.namespace, zone=last)
    assert [bpf.lookup_or_none(private_flowmap, key) for key in keys[last]] == [None, None]
    assert list(bpf.iterate_keys(private_flowmap)) == []


@pytest.mark.clause("FM-3.5", "FM-5.1")
@without_nft_flowtable
@each_protocol
def test_lookup_with_other_zone_misses(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    protocol: int,
) -> None:
    """A key that differs only in the zone, the default zone included, is a miss."""
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    keys = act_ct_offload.wait_offloaded(open_private_connection(protocol, 4))
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_xdp"), "by_xdp")
    swapped_octets = ZONE << 8
    for key in keys:
        assert probe.lookup(key) is not None
        for zone in (0, OTHER_ZONE, swapped_octets, ZONE | 0x100, _LARGEST_ZONE):
            other = _with_zone(key, zone)
            assert bpf.lookup_or_none(private_flowmap, other) is None, zone
            assert probe.lookup(other) is None, zone


@pytest.mark.clause("FM-3.5", "FM-3.19", "FM-5.1")
@each_version
@each_protocol
def test_flow_of_default_zone_has_zone_0(
    flowmap: int, open_connection: OpenConnection, protocol: int, version: int
) -> None:
    """Without a zone the keys have zone 0, and a lookup with another zone misses."""
    flow = open_connection(protocol, version).wait_offloaded()
    assert sorted(map(bytes, bpf.iterate_keys(flowmap))) == sorted(map(bytes, flow.keys))
    for key in flow.keys:
        assert key.zone == 0
        assert bpf.lookup(flowmap, key).ct_zone == 0
        assert bpf.lookup_or_none(flowmap, _with_zone(key, ZONE)) is None


@pytest.mark.clause("FM-3.5", "FM-3.19", "FM-5.1")
@each_version
@pytest.mark.parametrize("zone", [1, 0x0102, _LARGEST_ZONE], ids="zone-{:#x}".format)
def test_nft_flow_in_zone_is_found_with_zone(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    zone: int,
    version: int,
) -> None:
    """A flow that nft has put into a zone is found by its keys with the zone, in host order."""
    nftables.run(
        f"""
        table inet zones {{
            chain pre {{
                type filter hook prerouting priority raw;
                ct zone set {zone}
            }}
        }}
        """,
        private_router.namespace,
    )
    flow = _wait_offloaded_in_zone(open_private_connection(IPPROTO_UDP, version), zone)
    assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == sorted(map(bytes, flow.keys))
    for direction, key in enumerate(flow.keys):
        assert key.zone == zone
        value = bpf.lookup(private_flowmap, key)
        assert (value.dir, value.ct_zone) == (direction, zone)
        assert bpf.lookup_or_none(private_flowmap, _with_zone(key, 0)) is None


@pytest.mark.clause("FM-3.5", "FM-5.1")
def test_zone_of_one_direction_is_only_in_that_key(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
) -> None:
    """A zone that applies to the original direction only is in the original key only."""
    zone = 7
    nftables.run(
        f"""
        table inet zones {{
            chain pre {{
                type filter hook prerouting priority raw;
                iifname "r0" ct original zone set {zone}
            }}
        }}
        """,
        private_router.namespace,
    )
    cleanup.callback(conntrack.flush, private_router.namespace)
    flow = _wait_offloaded_in_zone(open_private_connection(IPPROTO_UDP, 4), zone)
    assert [key.zone for key in flow.keys] == [zone, 0]
    assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]
    for key, other in zip(flow.keys, (0, zone), strict=True):
        assert bpf.lookup_or_none(private_flowmap, _with_zone(key, other)) is None


def _wait_offloaded_in_zone(conn: Connection, zone: int) -> Flow:
    """Exchange messages until the connection is offloaded in a zone; return its flow."""

    def offloaded() -> Flow | None:
        conn.exchange()
        for entry in conntrack.offloaded_entries(conn.router.namespace):
            if entry.original == conn.tuple and entry.zones[0] == zone:
                return connections.flow_from_conntrack(conn.router, entry)
        return None

    return wait_for(f"{conn.tuple} to be offloaded in zone {zone}", offloaded)
