# SPDX-License-Identifier: GPL-2.0-only
"""A card hears by netlink when connections end, and knows its flows of them by the value."""

from collections.abc import Callable

import pytest

from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection
from fixtures.guest.traffic.nic_model import Nic


def _delete(router: Router, talk: Connection) -> None:
    conntrack.delete(talk.tuple, router.namespace)


def _flush(router: Router, _: Connection) -> None:
    conntrack.flush(router.namespace)


@pytest.mark.clause("FM-3", "SN-6")
@pytest.mark.parametrize("end", [_delete, _flush])
def test_notification_names_the_flows_that_end(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    end: Callable[[Router, Connection], None],
) -> None:
    card, map_now = Nic(own_flowmap), Nic(own_flowmap)
    with conntrack.destroyed(own_router.namespace) as ended:
        talks = [
            own_connection(protocol, version)
            for protocol in (TCP_PROTOCOL, UDP_PROTOCOL)
            for version in (4, 6)
        ]
        for talk in talks:
            talk.offloaded()
        card.learn()
        assert len(card) == 2 * len(talks)
        assert ended() == []

        end(own_router, talks[0])
        for entry in ended():
            card.forget(entry.identity)
        map_now.learn()
        assert card.keys == map_now.keys
        assert len(card) == (0 if end is _flush else 2 * len(talks) - 2)
