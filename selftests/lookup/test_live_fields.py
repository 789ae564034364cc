# SPDX-License-Identifier: GPL-2.0-only
"""Value fields that reflect the state at lookup time, not at flow creation."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import tun
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.mark.clause("FM-3")
@versions
def test_mark_is_that_of_now(
    own_router: Router, own_flowmap: int, own_connection: Connect, load: Load, version: int
) -> None:
    """After each change of the conntrack mark, both directions' values hold the new mark."""
    flow = own_connection(TCP_PROTOCOL, version).offloaded()
    probe = Asker(load("lookup_probe", own_flowmap, "by_xdp"), "by_xdp")
    for mark in (0x5EED0001, 7, 0):
        conntrack.mark(flow.entry.original, mark, own_router.namespace)
        assert [bpf.lookup(own_flowmap, key).ct_mark for key in flow.keys] == [mark, mark]
        by_program = [probe.ask(key) for key in flow.keys]
        assert [value and value.ct_mark for value in by_program] == [mark, mark]


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize(
    ("state", "valid"),
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
    valid: bool,
) -> None:
    """The value holds the MAC addresses while the neighbour entry is valid, and else zeros.

    The entry stays in the neighbour table with its address in every state.
    """
    flow = own_connection(UDP_PROTOCOL, version).offloaded()
    wan, server = own_router.outside, own_router.server
    change = rtnetlink.doubt(wan.index, server.addresses[version], state)
    netlink.transact(netlink.NETLINK_ROUTE, [change], wan.namespace)

    value = bpf.lookup(own_flowmap, flow.original)
    expected = (wan.mac, server.mac) if valid else ("00:00:00:00:00:00",) * 2
    assert (uapi.mac(value.h_source), uapi.mac(value.h_dest)) == expected
    back = bpf.lookup(own_flowmap, flow.reply)
    assert uapi.mac(back.h_dest) == own_router.client.mac


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize(
    "kind", [tun.ARPHRD_NONE, tun.ARPHRD_FDDI], ids=["arphrd-none", "arphrd-fddi"]
)
def test_device_without_ethernet_has_no_mac_addresses(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, kind: int
) -> None:
    """The value has no MAC addresses if the output device is not Ethernet.

    FDDI addresses are as long as Ethernet's, but they do not belong into an Ethernet header.
    """
    far_end = tun.beside(own_router, cleanup)
    if kind == tun.ARPHRD_FDDI:
        mac = "00:00:f8:12:34:56"
        tun.change_kind(own_router, far_end, kind)
        entry = rtnetlink.neighbour(far_end.index, far_end.address, mac)
        netlink.transact(netlink.NETLINK_ROUTE, [entry], own_router.namespace)
        assert rtnetlink.stations(far_end.index, own_router.namespace) == [mac]
    tun.offload(own_router)
    conn = tun.Talk(own_router, far_end, cleanup)

    def offloaded() -> bool:
        conn.ask()
        conn.answer()
        return conn.offloaded

    wait_for("the connection to be offloaded", offloaded)
    value = bpf.lookup(own_flowmap, conn.keys[0])
    assert value.oifindex == far_end.index
    assert (uapi.mac(value.h_source), uapi.mac(value.h_dest)) == ("00:00:00:00:00:00",) * 2
