# SPDX-License-Identifier: GPL-2.0-only
"""Mirroring of act_ct's own flow tables: one table for each conntrack zone, without nf_tables."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, tc
from fixtures.guest.pytest_plugin.plugin_api import Connect, Flowmap, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import act_ct
from fixtures.guest.traffic.act_ct import CS1, OTHER_ZONE, ZONE
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

without_nft_flowtable = pytest.mark.parametrize(
    "own_router", [Plan(tables="none")], ids=describe, indirect=True
)


@pytest.mark.clause("SN-2", "FM-4", "FM-3")
@without_nft_flowtable
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_flow_of_act_ct_is_there(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    make_flowmap: Flowmap,
    protocol: int,
    version: int,
) -> None:
    """An act_ct flow is in an existing map and in one created later, in both directions."""
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    keys = act_ct.offloaded(own_connection(protocol, version))
    for fd in (own_flowmap, make_flowmap(own_router.namespace)):
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]
        assert [bpf.lookup(fd, key).ct_zone for key in keys] == [ZONE, ZONE]
        assert {bytes(key) for key in bpf.keys(fd)} == {bytes(key) for key in keys}


@pytest.mark.clause("SN-6")
@without_nft_flowtable
def test_flow_of_act_ct_is_missed_once_its_connection_is_flushed(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    """An act_ct flow is a miss after a conntrack flush, and found when offloaded again."""
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    conn = own_connection(UDP_PROTOCOL, 4)
    for _ in range(2):
        keys = act_ct.offloaded(conn)
        assert [bpf.lookup(own_flowmap, key).dir for key in keys] == [0, 1]
        conntrack.flush(own_router.namespace)
        assert [bpf.found(own_flowmap, key) for key in keys] == [None, None]


@pytest.mark.clause("SN-6", "SN-8")
@without_nft_flowtable
def test_flow_of_act_ct_goes_with_its_table(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    """An act_ct flow leaves the map when its zone's flow table is freed."""
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    keys = act_ct.offloaded(own_connection(UDP_PROTOCOL, 4))
    assert len(list(bpf.keys(own_flowmap))) == 2
    for device in ("r0", "r1"):
        tc.run(f"qdisc del dev {device} clsact", own_router.namespace)
    # act_ct frees the table of a zone from a work item, after a grace period.
    wait_for("the zone's table to be freed", lambda: not list(bpf.keys(own_flowmap)))
    assert [bpf.found(own_flowmap, key) for key in keys] == [None, None]


@pytest.mark.clause("SN-2", "SN-10")
@pytest.mark.parametrize("own_router", [Plan()], ids=describe, indirect=True)
def test_flows_of_act_ct_and_nft_are_both_there(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    """A map has the flows of act_ct's and nft's tables at the same time."""
    by_nft = own_connection(UDP_PROTOCOL, 4, server_port=7001).offloaded()
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    by_tc = act_ct.offloaded(own_connection(TCP_PROTOCOL, 6, server_port=7002))
    found = {bytes(key) for key in bpf.keys(own_flowmap)}
    assert found >= {bytes(key) for key in (*by_nft.keys, *by_tc)}


@pytest.mark.clause("SN-10")
@without_nft_flowtable
@pytest.mark.parametrize("first", [ZONE, OTHER_ZONE], ids="delete-zone-{}-first".format)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_tuple_of_two_tables_is_found_until_the_last_goes(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    make_flowmap: Flowmap,
    version: int,
    first: int,
) -> None:
    """A tuple that is offloaded in two zones is found until its last flow is deleted."""
    # One pair of sockets, two connections: conntrack zones separate equal tuples.
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    tc.offload(["r0", "r1"], OTHER_ZONE, own_router.namespace, dscp=CS1)
    conn = own_connection(UDP_PROTOCOL, version)
    keys = act_ct.offloaded(conn, ZONE)
    conn.mark(CS1)
    act_ct.offloaded(conn, OTHER_ZONE)
    assert act_ct.served(conn, ZONE)
    # The first map mirrored the flows when they were added, the second in its initial walk.
    maps = (own_flowmap, make_flowmap(own_router.namespace))
    for fd in maps:
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]

    last = ZONE + OTHER_ZONE - first
    conntrack.delete(conn.tuple, own_router.namespace, zone=first)
    for fd in maps:
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]
        assert {bytes(key) for key in bpf.keys(fd)} == {bytes(key) for key in keys}

    conntrack.delete(conn.tuple, own_router.namespace, zone=last)
    for fd in maps:
        assert [bpf.found(fd, key) for key in keys] == [None, None]
        assert list(bpf.keys(fd)) == []
