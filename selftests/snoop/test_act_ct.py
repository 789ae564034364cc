# SPDX-License-Identifier: GPL-2.0-only
"""Mirroring of act_ct's own flow tables: one table for each conntrack zone, without nf_tables."""

from collections.abc import Sequence

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, tc
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import act_ct_offload
from fixtures.guest.traffic.act_ct_offload import DSCP_CS1, OTHER_ZONE, ZONE
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

without_nft_flowtable = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)


@pytest.mark.clause("SN-2.3", "SN-3.4", "SN-4.1", "SN-10.5", "FM-3.5", "FM-3.19")
@without_nft_flowtable
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_act_ct_flow_is_mirrored(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    protocol: int,
    version: int,
) -> None:
    """An act_ct flow is in an existing map and in one created later, in both directions."""
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    keys = act_ct_offload.wait_offloaded(open_private_connection(protocol, version))
    for fd in (private_flowmap, make_flowmap(private_router.namespace)):
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]
        assert [bpf.lookup(fd, key).ct_zone for key in keys] == [ZONE, ZONE]
        assert {bytes(key) for key in bpf.iterate_keys(fd)} == {bytes(key) for key in keys}


@pytest.mark.clause("SN-2.3", "SN-6.4")
@without_nft_flowtable
def test_act_ct_flow_after_conntrack_flush_is_miss(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """An act_ct flow is a miss after a conntrack flush, and found when offloaded again."""
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    conn = open_private_connection(IPPROTO_UDP, 4)
    for _ in range(2):
        keys = act_ct_offload.wait_offloaded(conn)
        assert [bpf.lookup(private_flowmap, key).dir for key in keys] == [0, 1]
        conntrack.flush(private_router.namespace)
        assert [bpf.lookup_or_none(private_flowmap, key) for key in keys] == [None, None]


@pytest.mark.clause("SN-2.3", "SN-6.7")
@without_nft_flowtable
def test_act_ct_flow_after_flowtable_free_is_miss(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """An act_ct flow leaves the map when its zone's flow table is freed."""
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    keys = act_ct_offload.wait_offloaded(open_private_connection(IPPROTO_UDP, 4))
    assert len(list(bpf.iterate_keys(private_flowmap))) == 2
    for device in ("r0", "r1"):
        tc.run(f"qdisc del dev {device} clsact", private_router.namespace)
    # act_ct frees the table of a zone from a work item, after a grace period.
    wait_for("the zone's table to be freed", lambda: not list(bpf.iterate_keys(private_flowmap)))
    assert [bpf.lookup_or_none(private_flowmap, key) for key in keys] == [None, None]


@pytest.mark.clause("SN-2.1", "SN-2.2", "SN-2.3")
@pytest.mark.parametrize("private_router", [RouterConfig()], ids=router_config_id, indirect=True)
def test_act_ct_and_nft_flows_are_both_mirrored(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """A map has the flows of act_ct's and nft's tables at the same time."""
    by_nft = open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    by_tc = act_ct_offload.wait_offloaded(open_private_connection(IPPROTO_TCP, 6, server_port=7002))
    expected = sorted(bytes(key) for key in (*by_nft.keys, *by_tc))
    assert sorted(map(bytes, bpf.iterate_keys(private_flowmap))) == expected


@pytest.mark.clause("SN-10.1")
@without_nft_flowtable
@pytest.mark.parametrize("first", [ZONE, OTHER_ZONE], ids="delete-zone-{}-first".format)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_tuple_in_two_zones_is_two_keys_until_each_flow_ends(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    version: int,
    first: int,
) -> None:
    """A tuple that is offloaded in two zones has a key in each; each is found until its end."""
    # One pair of sockets, two connections: conntrack zones separate equal tuples.
    tc.add_act_ct(["r0", "r1"], ZONE, private_router.namespace)
    tc.add_act_ct(["r0", "r1"], OTHER_ZONE, private_router.namespace, dscp=DSCP_CS1)
    conn = open_private_connection(IPPROTO_UDP, version)
    keys = {ZONE: act_ct_offload.wait_offloaded(conn, ZONE)}
    conn.set_dscp(DSCP_CS1)
    keys[OTHER_ZONE] = act_ct_offload.wait_offloaded(conn, OTHER_ZONE)
    assert act_ct_offload.is_offloaded(conn, ZONE)
    # The first map got the flows when they were added, the second when it was published.
    maps = (private_flowmap, make_flowmap(private_router.namespace))
    for fd in maps:
        assert {zone: _zones_and_directions(fd, keys[zone]) for zone in keys} == {
            ZONE: [(ZONE, 0), (ZONE, 1)],
            OTHER_ZONE: [(OTHER_ZONE, 0), (OTHER_ZONE, 1)],
        }
        walked = [bytes(key) for key in bpf.iterate_keys(fd)]
        assert sorted(walked) == sorted(map(bytes, (*keys[ZONE], *keys[OTHER_ZONE])))

    last = ZONE + OTHER_ZONE - first
    conntrack.delete(conn.tuple, private_router.namespace, zone=first)
    for fd in maps:
        assert _zones_and_directions(fd, keys[first]) == [None, None]
        assert _zones_and_directions(fd, keys[last]) == [(last, 0), (last, 1)]
        assert {bytes(key) for key in bpf.iterate_keys(fd)} == set(map(bytes, keys[last]))

    conntrack.delete(conn.tuple, private_router.namespace, zone=last)
    for fd in maps:
        assert [bpf.lookup_or_none(fd, key) for zone in keys for key in keys[zone]] == [None] * 4
        assert list(bpf.iterate_keys(fd)) == []


def _zones_and_directions(fd: int, keys: Sequence[uapi.Key]) -> list[tuple[int, int] | None]:
    """Return zone and direction that each key's lookup finds, or None for a miss."""
    values = [bpf.lookup_or_none(fd, key) for key in keys]
    return [None if value is None else (value.ct_zone, value.dir) for value in values]
