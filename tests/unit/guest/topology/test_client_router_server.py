# SPDX-License-Identifier: GPL-2.0-only
"""Names and rulesets of router configurations."""

import pytest

from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import RouterConfig


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (RouterConfig(), "plain"),
        (RouterConfig(nat="masquerade"), "masquerade"),
        (RouterConfig(nat="snat+dnat", vlans=(7,)), "snat+dnat-vlan7"),
        (RouterConfig(tables="split"), "split"),
    ],
    ids=["plain", "masquerade", "snat-dnat-vlan", "split"],
)
def test_config_str_is_readable_name(config: RouterConfig, name: str) -> None:
    assert str(config) == name


def test_ruleset_matches_config() -> None:
    plain = client_router_server.ruleset(RouterConfig())
    assert "flow add @ft" in plain
    assert "nat" not in plain
    both = client_router_server.ruleset(RouterConfig(nat="snat+dnat"))
    assert "snat ip to 203.0.113.77" in both
    assert "dnat ip6 to 2001:db8:2::2" in both
    assert client_router_server.ruleset(RouterConfig(tables="split")).count("flowtable ft") == 3
    assert "flow add" not in client_router_server.ruleset(RouterConfig(tables="none"))
