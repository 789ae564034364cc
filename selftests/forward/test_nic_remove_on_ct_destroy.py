# SPDX-License-Identifier: GPL-2.0-only
"""A NIC model removes flows on conntrack DESTROY events.

The event's conntrack id is the value's ``ct_id``, so the model knows which flows ended.
"""

from collections.abc import Callable

import pytest

from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection
from fixtures.guest.traffic.flowmap_nic_model import NicModel


def _conntrack_delete(router: Router, conn: Connection) -> None:
    """Delete one entry, as ``conntrack -D`` does."""
    conntrack.delete(conn.tuple, router.namespace)


def _conntrack_flush(router: Router, _: Connection) -> None:
    """Delete all entries, as ``conntrack -F`` does."""
    conntrack.flush(router.namespace)


@pytest.mark.clause("FM-3.18", "SN-6.4")
@pytest.mark.parametrize(
    "end_connections",
    [_conntrack_delete, _conntrack_flush],
    ids=["conntrack-delete", "conntrack-flush"],
)
def test_conntrack_destroy_event_identifies_ended_flows(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    end_connections: Callable[[Router, Connection], None],
) -> None:
    """DESTROY events carry the ``ct_id`` of exactly the flows that leave the map."""
    nic, resynced = NicModel(private_flowmap), NicModel(private_flowmap)
    with conntrack.listen_destroy_events(private_router.namespace) as destroyed_entries:
        conns = [
            open_private_connection(protocol, version)
            for protocol in (IPPROTO_TCP, IPPROTO_UDP)
            for version in (4, 6)
        ]
        for conn in conns:
            conn.wait_offloaded()
        nic.sync_from_map()
        assert len(nic) == 2 * len(conns)
        assert destroyed_entries() == []

        end_connections(private_router, conns[0])
        for entry in destroyed_entries():
            nic.remove_connection(entry.ct_id)
        resynced.sync_from_map()
        assert nic.keys == resynced.keys
        assert len(nic) == (0 if end_connections is _conntrack_flush else 2 * len(conns) - 2)
