# SPDX-License-Identifier: GPL-2.0-only
"""Messages for policy routing and for further kinds of links, encoded and decoded again."""

import socket
from typing import Any

import pytest
from pyroute2.netlink import nlmsg

from fixtures.guest.net import link_kinds, netlink, policy_routing


def _decoded(msg: nlmsg) -> tuple[nlmsg, dict[str, Any]]:
    msg.encode()
    decoded = type(msg)(bytes(msg.data))
    decoded.decode()
    return decoded, netlink.attributes(decoded)


@pytest.mark.parametrize(
    ("version", "family"),
    [(4, socket.AF_INET), (6, socket.AF_INET6)],
    ids=["ipv4", "ipv6"],
)
def test_mark_rule_has_family_mark_and_table(version: int, family: int) -> None:
    msg, attrs = _decoded(policy_routing.add_mark_rule(version, priority=101, mark=1, table=201))
    assert (msg["family"], msg["table"]) == (family, 201)
    assert (attrs["FRA_PRIORITY"], attrs["FRA_FWMARK"], attrs["FRA_TABLE"]) == (101, 1, 201)


def test_specific_routes_rule_suppresses_default_route_of_main_table() -> None:
    _, attrs = _decoded(policy_routing.add_specific_routes_rule(4, priority=10))
    assert (attrs["FRA_TABLE"], attrs["FRA_SUPPRESS_PREFIXLEN"]) == (254, 0)


def test_default_route_of_table_replaces_the_old_one() -> None:
    msg, attrs = _decoded(policy_routing.replace_default_route("2001:db8::1", 22, 101))
    assert (msg["family"], msg["table"], msg["dst_len"]) == (socket.AF_INET6, 101, 0)
    assert (attrs["RTA_GATEWAY"], attrs["RTA_OIF"]) == ("2001:db8::1", 22)
    assert msg["header"]["flags"] & netlink.NLM_F_REPLACE


@pytest.mark.parametrize(
    ("msg", "kind", "option"),
    [
        (link_kinds.add_bond("b", 9, "02:00:00:00:00:01"), "bond", "IFLA_BOND_MODE"),
        (link_kinds.add_vrf("b", 9, 10), "vrf", "IFLA_VRF_TABLE"),
        (
            link_kinds.add_vxlan("b", 9, "02:00:00:00:00:01", 1, "192.0.2.1", "192.0.2.2"),
            "vxlan",
            "IFLA_VXLAN_GROUP",
        ),
        (link_kinds.add_wireguard("b", 9), "wireguard", None),
    ],
    ids=["bond", "vrf", "vxlan", "wireguard"],
)
def test_link_has_kind_and_options(msg: nlmsg, kind: str, option: str | None) -> None:
    decoded, attrs = _decoded(msg)
    assert decoded["index"] == 9
    info = netlink.attributes(attrs["IFLA_LINKINFO"])
    assert info["IFLA_INFO_KIND"] == kind
    assert ("IFLA_INFO_DATA" in info) == (option is not None)
    if option is not None:
        assert option in netlink.attributes(info["IFLA_INFO_DATA"])
