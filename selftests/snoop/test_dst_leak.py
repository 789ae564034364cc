# SPDX-License-Identifier: GPL-2.0-only
"""Routes (dst entries) that a flow table has cached are freed after the flows."""

from pathlib import Path

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_UDP


def _ipv4_dst_count() -> int:
    """Return the number of IPv4 dst entries of all netns.

    The kernel computes it with ``dst_entries_get_slow()`` in net/ipv4/route.c.
    """
    _, first, *_ = Path("/proc/net/stat/rt_cache").read_text().splitlines()
    return int(first.split()[0], 16)


@pytest.mark.clause("SN-5.3", "SN-8.1")
@pytest.mark.parametrize(
    # Through a bridge a flow table transmits directly, and holds no route.
    "private_router",
    [RouterConfig(), RouterConfig(bridge="plain")],
    ids=router_config_id,
    indirect=True,
)
@pytest.mark.usefixtures("own_kernel", "private_flowmap")
def test_dst_entries_are_freed_after_flows_and_netns(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """The number of IPv4 dst entries returns to the baseline after flows and netns are removed."""
    before = _ipv4_dst_count()
    conn = open_private_connection(IPPROTO_UDP, 4)
    conn.wait_offloaded()
    assert _ipv4_dst_count() > before
    conntrack.flush(private_router.namespace)
    # Sockets pin their netns and the route of their last packet.
    conn.client.close()
    conn.server.close()
    for part in (private_router, private_router.client, private_router.server):
        netns.remove(part.namespace)
    wait_for("the routes to be freed", lambda: _ipv4_dst_count() <= before)
