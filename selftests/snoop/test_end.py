# SPDX-License-Identifier: GPL-2.0-only
"""A flow that ends: found before, missed at once when its table stops serving it."""

from collections.abc import Callable

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import conntrack, flowtable, links, netlink, netns, nftables
from fixtures.guest.plugin import Connect
from fixtures.guest.topology import Router
from fixtures.guest.traffic import TCP_PROTOCOL, UDP_PROTOCOL, Connection, Flow
from fixtures.guest.wait import wait_for

End = Callable[[Connection, Router], None]


def finish(talk: Connection, _: Router) -> None:
    """FIN from the client."""
    talk.finish()


def server_finish(talk: Connection, _: Router) -> None:
    """FIN from the server."""
    talk.server.close()


def reset(talk: Connection, _: Router) -> None:
    """RST from the client."""
    talk.reset()


def conntrack_delete(talk: Connection, router: Router) -> None:
    """conntrack -D."""
    conntrack.delete(talk.tuple, router.namespace)


def conntrack_flush(_: Connection, router: Router) -> None:
    """conntrack -F."""
    conntrack.flush(router.namespace)


def table_delete(_: Connection, router: Router) -> None:
    """nft delete table."""
    flowtable.drop_table("fw", router.namespace)


def ruleset_flush(_: Connection, router: Router) -> None:
    """nft flush ruleset."""
    nftables.run("flush ruleset", router.namespace)


def device_down(_: Connection, router: Router) -> None:
    """ip link set r1 down."""
    netlink.transact(netlink.NETLINK_ROUTE, [links.down(router.outside.index)], router.namespace)


def device_delete(_: Connection, router: Router) -> None:
    """ip link del r1."""
    netlink.transact(netlink.NETLINK_ROUTE, [links.delete(router.outside.index)], router.namespace)


def silence(_: Connection, __: Router) -> None:
    """Nothing more is sent, and the flow expires."""


TCP_ENDS: tuple[End, ...] = (finish, server_finish, reset, silence)
ENDS: tuple[End, ...] = (
    conntrack_delete,
    conntrack_flush,
    table_delete,
    ruleset_flush,
    device_down,
    device_delete,
)


def _no_longer_served(talk: Connection) -> bool:
    entry = talk.entry()
    return entry is None or not entry.offloaded


def _expect_found(fd: int, flow: Flow) -> None:
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]


def _expect_missed(fd: int, flow: Flow) -> None:
    assert [bpf.found(fd, key) for key in flow.keys] == [None, None]
    assert list(bpf.keys(fd)) == []


@pytest.mark.clause("SN-6")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("end", TCP_ENDS, ids=lambda end: end.__name__)
def test_closed_connection_is_missed(
    own_router: Router, own_flowmap: int, own_connection: Connect, end: End, version: int
) -> None:
    # A FIN or RST only marks a flow; its table serves it until it expires (or a SYN comes).
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_tcp_timeout": 2})
    talk = own_connection(TCP_PROTOCOL, version)
    flow = talk.offloaded()
    _expect_found(own_flowmap, flow)

    end(talk, own_router)
    wait_for("the flow table to stop serving the flow", lambda: _no_longer_served(talk))
    _expect_missed(own_flowmap, flow)


@pytest.mark.clause("SN-6")
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_ended_flow_is_missed_at_once(
    own_router: Router, own_flowmap: int, own_connection: Connect, end: End, protocol: int
) -> None:
    talk = own_connection(protocol, 4)
    flow = talk.offloaded()
    _expect_found(own_flowmap, flow)
    end(talk, own_router)
    _expect_missed(own_flowmap, flow)


@pytest.mark.clause("SN-6", "SN-4")
def test_connection_reopened_on_the_same_ports_is_a_new_flow(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    first = own_connection(TCP_PROTOCOL, 4, client_port=40000)
    before = first.offloaded()
    first.reset()
    first.server.close()
    # The flow that the RST marked is torn down by the SYN.
    after = own_connection(TCP_PROTOCOL, 4, client_port=40000).offloaded()
    assert bytes(after.original) == bytes(before.original)
    _expect_found(own_flowmap, after)
    assert len(conntrack.offloaded(own_router.namespace)) == 1
    assert len(list(bpf.keys(own_flowmap))) == 2


@pytest.mark.clause("SN-6", "SN-4")
def test_same_connection_is_found_again(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    talk = own_connection(UDP_PROTOCOL, 4)
    for _ in range(3):
        flow = talk.offloaded()
        _expect_found(own_flowmap, flow)
        conntrack.flush(own_router.namespace)
        _expect_missed(own_flowmap, flow)


@pytest.mark.clause("SN-6")
def test_end_of_one_flow_leaves_the_others(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    talks = [own_connection(UDP_PROTOCOL, 4, server_port=7000 + number) for number in range(4)]
    flows = [talk.offloaded() for talk in talks]
    for gone in range(4):
        conntrack.delete(talks[gone].tuple, own_router.namespace)
        found = [bpf.found(own_flowmap, flow.original) is not None for flow in flows]
        assert found == [number > gone for number in range(4)]
