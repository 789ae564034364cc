# SPDX-License-Identifier: GPL-2.0-only
"""The routes that a flow table has looked up go when nobody uses them any more."""

from pathlib import Path

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.fixtures import Connect, describe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL


def _routes() -> int:
    """IPv4 routes in memory, of all namespaces: ``dst_entries_get_slow()`` of net/ipv4/route.c."""
    _, first, *_ = Path("/proc/net/stat/rt_cache").read_text().splitlines()
    return int(first.split()[0], 16)


@pytest.mark.clause("SN-8")
@pytest.mark.parametrize(
    # Through a bridge a flow table sends directly, and keeps no route.
    "own_router",
    [Plan(), Plan(bridge="plain")],
    ids=describe,
    indirect=True,
)
@pytest.mark.usefixtures("own_flowmap")
def test_no_route_outlives_flows_and_namespaces(
    own_router: Router, own_connection: Connect
) -> None:
    before = _routes()
    talk = own_connection(UDP_PROTOCOL, 4)
    talk.offloaded()
    assert _routes() > before
    conntrack.flush(own_router.namespace)
    # Sockets have namespaces, and keep the route that they have sent by.
    talk.client.close()
    talk.server.close()
    for part in (own_router, own_router.client, own_router.server):
        netns.remove(part.namespace)
    wait_for("the routes to be gone", lambda: _routes() <= before)
