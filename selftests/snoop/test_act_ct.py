# SPDX-License-Identifier: GPL-2.0-only
"""Flows of act_ct's own flow tables: one table for each zone, without nf_tables."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, tc
from fixtures.guest.pytest_plugin.fixtures import Connect, Flowmap, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import act_ct
from fixtures.guest.traffic.act_ct import CS1, OTHER_ZONE, ZONE
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

UNTRACKED = pytest.mark.parametrize(
    "own_router", [Plan(tables="none")], ids=describe, indirect=True
)


@pytest.mark.clause("SN-2", "FM-4", "FM-3")
@UNTRACKED
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
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    keys = act_ct.offloaded(own_connection(protocol, version))
    for fd in (own_flowmap, make_flowmap(own_router.namespace)):
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]
        assert [bpf.lookup(fd, key).ct_zone for key in keys] == [ZONE, ZONE]
        assert {bytes(key) for key in bpf.keys(fd)} == {bytes(key) for key in keys}


@pytest.mark.clause("SN-6")
@UNTRACKED
def test_flow_of_act_ct_is_missed_once_its_connection_is_flushed(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    talk = own_connection(UDP_PROTOCOL, 4)
    for _ in range(2):
        keys = act_ct.offloaded(talk)
        assert [bpf.lookup(own_flowmap, key).dir for key in keys] == [0, 1]
        conntrack.flush(own_router.namespace)
        assert [bpf.found(own_flowmap, key) for key in keys] == [None, None]


@pytest.mark.clause("SN-6", "SN-8")
@UNTRACKED
def test_flow_of_act_ct_goes_with_its_table(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    keys = act_ct.offloaded(own_connection(UDP_PROTOCOL, 4))
    assert len(list(bpf.keys(own_flowmap))) == 2
    for device in ("r0", "r1"):
        tc.run(f"qdisc del dev {device} clsact", own_router.namespace)
    # act_ct frees the table of a zone from a work item, after a grace period.
    wait_for("the zone's table to go", lambda: not list(bpf.keys(own_flowmap)))
    assert [bpf.found(own_flowmap, key) for key in keys] == [None, None]


@pytest.mark.clause("SN-2", "SN-10")
@pytest.mark.parametrize("own_router", [Plan()], ids=describe, indirect=True)
def test_flows_of_act_ct_and_nft_are_both_there(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    by_nft = own_connection(UDP_PROTOCOL, 4, server_port=7001).offloaded()
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    by_tc = act_ct.offloaded(own_connection(TCP_PROTOCOL, 6, server_port=7002))
    found = {bytes(key) for key in bpf.keys(own_flowmap)}
    assert found >= {bytes(key) for key in (*by_nft.keys, *by_tc)}


@pytest.mark.clause("SN-10")
@UNTRACKED
@pytest.mark.parametrize("first", [ZONE, OTHER_ZONE])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_tuple_of_two_tables_is_found_until_the_last_goes(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    make_flowmap: Flowmap,
    version: int,
    first: int,
) -> None:
    # Two connections of one pair of sockets: zones keep apart what a tuple does not.
    tc.offload(["r0", "r1"], ZONE, own_router.namespace)
    tc.offload(["r0", "r1"], OTHER_ZONE, own_router.namespace, dscp=CS1)
    talk = own_connection(UDP_PROTOCOL, version)
    keys = act_ct.offloaded(talk, ZONE)
    talk.mark(CS1)
    act_ct.offloaded(talk, OTHER_ZONE)
    assert act_ct.served(talk, ZONE)
    # One map heard of the flows as they came, the other found them there.
    maps = (own_flowmap, make_flowmap(own_router.namespace))
    for fd in maps:
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]

    last = ZONE + OTHER_ZONE - first
    conntrack.delete(talk.tuple, own_router.namespace, zone=first)
    for fd in maps:
        assert [bpf.lookup(fd, key).dir for key in keys] == [0, 1]
        assert {bytes(key) for key in bpf.keys(fd)} == {bytes(key) for key in keys}

    conntrack.delete(talk.tuple, own_router.namespace, zone=last)
    for fd in maps:
        assert [bpf.found(fd, key) for key in keys] == [None, None]
        assert list(bpf.keys(fd)) == []
