# SPDX-License-Identifier: GPL-2.0-only
"""Netlink messages and rulesets, without a kernel to send them to."""

import errno
import struct

import pytest

from fixtures.guest.net import flowtable, netlink, rtnetlink
from fixtures.guest.net.conntrack import Tuple
from fixtures.guest.net.flowtable_message import FlowtableMessage
from fixtures.guest.net.netlink import NetlinkError
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan


def test_flowtable_message_carries_any_flags() -> None:
    msg = flowtable.new_flowtable(1, "spy", "all", flags=0x80000004, devices=["r0"])
    msg.encode()
    data = bytes(msg.data)
    assert struct.pack(">I", 0x80000004) in data
    assert b"r0\0" in data
    assert b"spy\0" in data


def test_star_makes_the_start_of_a_name() -> None:
    msg = flowtable.new_flowtable(1, "spy", "all", devices=["r0", "veth*"])
    msg.encode()
    again = FlowtableMessage(bytes(msg.data))
    again.decode()
    assert flowtable._decoded(again).devices == ("r0", "veth*")
    assert struct.pack("=HH", 4 + len(b"veth\0"), 2) + b"veth\0" in bytes(msg.data)


def test_flowtable_message_decodes_the_counters() -> None:
    msg = netlink.message(
        FlowtableMessage,
        0xA16,
        0,
        [
            ("NFTA_FLOWTABLE_TABLE", "spy"),
            ("NFTA_FLOWTABLE_NAME", "all"),
            ("NFTA_FLOWTABLE_FLAGS", 4),
            ("NFTA_FLOWTABLE_SNOOP_ENTRIES", 7),
            ("NFTA_FLOWTABLE_SNOOP_MISSED", 1 << 40),
        ],
        nfgen_family=1,
    )
    msg.encode()
    again = FlowtableMessage(bytes(msg.data))
    again.decode()
    seen = flowtable._decoded(again)
    assert (seen.table, seen.flags, seen.entries, seen.missed) == ("spy", 4, 7, 1 << 40)


def test_refusal_has_the_errno_and_the_kernels_words() -> None:
    words = b"no such device\0\0"
    attribute = struct.pack("=HH", 4 + len(words), 1) + words
    inner = struct.pack("=IHHII", 16, 16, 0, 1, 0)
    body = struct.pack("=i", -errno.ENODEV) + inner + attribute
    data = struct.pack("=IHHII", 16 + len(body), 2, 0x200, 1, 0) + body
    with pytest.raises(NetlinkError, match=r"link: No such device \(no such device\)") as caught:
        netlink._raise_if_refused(0x200, data, "link")
    assert caught.value.errno == errno.ENODEV


def test_link_messages_encode() -> None:
    for msg in (
        rtnetlink.vlan("r0.7", 121, 21, 7),
        rtnetlink.up(1),
        rtnetlink.down(1),
        rtnetlink.address(21, "2001:db8::1", 64),
        rtnetlink.neighbour(21, "192.0.2.2", "02:00:00:00:00:0b"),
        rtnetlink.default_route("192.0.2.1"),
        rtnetlink.blackhole("198.51.100.0", 24),
    ):
        msg.encode()
        assert len(msg.data) >= 32


def test_tuple_reversed() -> None:
    side = Tuple(6, "192.0.2.2", "198.51.100.2", 1024, 80)
    assert side.reversed() == Tuple(6, "198.51.100.2", "192.0.2.2", 80, 1024)
    assert side.reversed().reversed() == side


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (Plan(), "plain"),
        (Plan(nat="masquerade"), "masquerade"),
        (Plan(nat="snat+dnat", vlans=(7,)), "snat+dnat-vlan7"),
        (Plan(tables="split"), "split"),
    ],
)
def test_plan_has_a_readable_name(plan: Plan, name: str) -> None:
    assert str(plan) == name


def test_ruleset_says_what_the_plan_says() -> None:
    plain = client_router_server.ruleset(Plan())
    assert "flow add @ft" in plain
    assert "nat" not in plain
    both = client_router_server.ruleset(Plan(nat="snat+dnat"))
    assert "snat ip to 203.0.113.77" in both
    assert "dnat ip6 to 2001:db8:2::2" in both
    assert client_router_server.ruleset(Plan(tables="split")).count("flowtable ft") == 3
    assert "flow add" not in client_router_server.ruleset(Plan(tables="none"))
