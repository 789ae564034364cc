# SPDX-License-Identifier: GPL-2.0-only
"""Routes (dst entries) that a flow table has cached are freed after the flows."""

from pathlib import Path

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL


def _ipv4_dst_count() -> int:
    """Return the number of IPv4 dst entries of all netns.

    The kernel computes it with ``dst_entries_get_slow()`` in net/ipv4/route.c.
    """
    _, first, *_ = Path("/proc/net/stat/rt_cache").read_text().splitlines()
    return int(first.split()[0], 16)


@pytest.mark.clause("SN-8")
@pytest.mark.parametrize(
    # Through a bridge a flow table transmits directly, and holds no route.
    "own_router",
    [Plan(), Plan(bridge="plain")],
    ids=describe,
    indirect=True,
)
@pytest.mark.usefixtures("own_flowmap")
def test_no_route_outlives_flows_and_namespaces(
    own_router: Router, own_connection: Connect
) -> None:
    """The number of IPv4 dst entries returns to the baseline after flows and netns are removed."""
    before = _ipv4_dst_count()
    conn = own_connection(UDP_PROTOCOL, 4)
    conn.offloaded()
    assert _ipv4_dst_count() > before
    conntrack.flush(own_router.namespace)
    # Sockets pin their netns and the route of their last packet.
    conn.client.close()
    conn.server.close()
    for part in (own_router, own_router.client, own_router.server):
        netns.remove(part.namespace)
    wait_for("the routes to be freed", lambda: _ipv4_dst_count() <= before)
