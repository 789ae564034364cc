# SPDX-License-Identifier: GPL-2.0-only
"""What a value says of the moment of the lookup, and not of when the flow was added."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import tun
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.mark.clause("FM-3")
@versions
def test_mark_is_that_of_now(
    own_router: Router, own_flowmap: int, own_connection: Connect, load: Load, version: int
) -> None:
    flow = own_connection(TCP_PROTOCOL, version).offloaded()
    asker = Asker(load("lookup_probe", own_flowmap, "by_xdp"), "by_xdp")
    for mark in (0x5EED0001, 7, 0):
        conntrack.mark(flow.entry.original, mark, own_router.namespace)
        assert [bpf.lookup(own_flowmap, key).ct_mark for key in flow.keys] == [mark, mark]
        told = [asker.ask(key) for key in flow.keys]
        assert [value and value.ct_mark for value in told] == [mark, mark]


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize(
    ("state", "known"),
    [(rtnetlink.NUD_STALE, True), (rtnetlink.NUD_FAILED, False), (rtnetlink.NUD_INCOMPLETE, False)],
    ids=["stale", "failed", "incomplete"],
)
@versions
def test_mac_addresses_are_those_of_a_neighbour_that_is_valid(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    version: int,
    state: int,
    known: bool,
) -> None:
    """The neighbour stays in the table, and has the address from before."""
    flow = own_connection(UDP_PROTOCOL, version).offloaded()
    by, server = own_router.outside, own_router.server
    change = rtnetlink.doubt(by.index, server.addresses[version], state)
    netlink.transact(netlink.NETLINK_ROUTE, [change], by.namespace)

    value = bpf.lookup(own_flowmap, flow.original)
    expected = (by.mac, server.mac) if known else ("00:00:00:00:00:00",) * 2
    assert (uapi.mac(value.h_source), uapi.mac(value.h_dest)) == expected
    back = bpf.lookup(own_flowmap, flow.reply)
    assert uapi.mac(back.h_dest) == own_router.client.mac


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize("kind", [tun.ARPHRD_NONE, tun.ARPHRD_FDDI], ids=["no-addresses", "fddi"])
def test_device_without_ethernet_has_no_mac_addresses(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, kind: int
) -> None:
    """Addresses of FDDI are as long as Ethernet's, but what they are written into is not."""
    wire = tun.beside(own_router, cleanup)
    if kind == tun.ARPHRD_FDDI:
        station = "00:00:f8:12:34:56"
        tun.change_kind(own_router, wire, kind)
        known = rtnetlink.neighbour(wire.index, wire.address, station)
        netlink.transact(netlink.NETLINK_ROUTE, [known], own_router.namespace)
        assert rtnetlink.stations(wire.index, own_router.namespace) == [station]
    tun.offload(own_router)
    talk = tun.Talk(own_router, wire, cleanup)

    def offloaded() -> bool:
        talk.ask()
        talk.answer()
        return talk.offloaded

    wait_for("the connection to be offloaded", offloaded)
    value = bpf.lookup(own_flowmap, talk.keys[0])
    assert value.oifindex == wire.index
    assert (uapi.mac(value.h_source), uapi.mac(value.h_dest)) == ("00:00:00:00:00:00",) * 2
