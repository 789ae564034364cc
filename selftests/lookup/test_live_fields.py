# SPDX-License-Identifier: GPL-2.0-only
"""Value fields that reflect the state at lookup time, not at flow creation."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import tun
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.mark.clause("FM-3.19")
@versions
def test_value_ct_mark_after_change_is_current(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    version: int,
) -> None:
    """After each change of the conntrack mark, both directions' values hold the new mark."""
    flow = open_private_connection(IPPROTO_TCP, version).wait_offloaded()
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_xdp"), "by_xdp")
    for mark in (0x5EED0001, 7, 0):
        conntrack.set_mark(flow.entry.original, mark, private_router.namespace)
        assert [bpf.lookup(private_flowmap, key).ct_mark for key in flow.keys] == [mark, mark]
        by_program = [probe.lookup(key) for key in flow.keys]
        assert [value and value.ct_mark for value in by_program] == [mark, mark]


@pytest.mark.clause("FM-3.13", "FM-3.14")
@pytest.mark.parametrize(
    ("state", "valid"),
    [(rtnetlink.NUD_STALE, True), (rtnetlink.NUD_FAILED, False), (rtnetlink.NUD_INCOMPLETE, False)],
    ids=["stale", "failed", "incomplete"],
)
@versions
def test_value_mac_addresses_need_valid_neighbour(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
    state: int,
    valid: bool,
) -> None:
    """The value holds the MAC addresses while the neighbour entry is valid, and else zeros.

    The entry stays in the neighbour table with its address in every state.
    """
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    wan, server = private_router.wan, private_router.server
    change = rtnetlink.set_neigh_state(wan.ifindex, server.addresses[version], state)
    netlink.transact(netlink.NETLINK_ROUTE, [change], wan.namespace)

    value = bpf.lookup(private_flowmap, flow.original)
    expected = (wan.mac, server.mac) if valid else ("00:00:00:00:00:00",) * 2
    assert (uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)) == expected
    back = bpf.lookup(private_flowmap, flow.reply)
    assert uapi.format_mac(back.h_dest) == private_router.client.mac


@pytest.mark.clause("FM-3.13")
@pytest.mark.parametrize(
    "kind", [tun.ARPHRD_NONE, tun.ARPHRD_FDDI], ids=["arphrd-none", "arphrd-fddi"]
)
def test_value_on_non_ethernet_device_has_no_mac(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, kind: int
) -> None:
    """The value has no MAC addresses if the output device is not Ethernet.

    FDDI addresses are as long as Ethernet's, but they do not belong into an Ethernet header.
    """
    far_end = tun.add_tun(private_router, cleanup)
    if kind == tun.ARPHRD_FDDI:
        mac = "00:00:f8:12:34:56"
        tun.set_link_type(private_router, far_end, kind)
        entry = rtnetlink.add_permanent_neigh(far_end.ifindex, far_end.address, mac)
        netlink.transact(netlink.NETLINK_ROUTE, [entry], private_router.namespace)
        assert rtnetlink.neigh_macs(far_end.ifindex, private_router.namespace) == [mac]
    tun.add_to_flowtable(private_router)
    conn = tun.TunConnection(private_router, far_end, cleanup)

    def offloaded() -> bool:
        conn.send_request()
        conn.send_reply()
        return conn.offloaded

    wait_for("the connection to be offloaded", offloaded)
    value = bpf.lookup(private_flowmap, conn.keys[0])
    assert value.oifindex == far_end.ifindex
    assert (uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)) == (
        "00:00:00:00:00:00",
    ) * 2
