# SPDX-License-Identifier: GPL-2.0-only
"""Capacities beyond 31 bits: the map has room for every flow, and counts none as missed."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

# On each side of a bit in which a narrower or a signed type would end.
CAPACITIES = (
    1 << 16,
    (1 << 17) - 1,
    1 << 17,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 2,
    (1 << 32) - 2,
    (1 << 32) - 1,
)


@pytest.mark.clause("FM-1.3", "FM-11.1")
def test_map_with_large_capacity_has_room_for_every_flow(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Maps of large capacities have the flows from before their creation and from after it."""
    early = [
        open_connection(IPPROTO_UDP, version, server_port=7100 + version).wait_offloaded()
        for version in (4, 6)
    ]
    maps = {capacity: make_flowmap(router.namespace, capacity) for capacity in CAPACITIES}
    late = [
        open_connection(IPPROTO_TCP, version, server_port=7200 + version).wait_offloaded()
        for version in (4, 6)
    ]
    expected = sorted(bytes(key) for flow in (*early, *late) for key in flow.keys)
    for capacity, fd in maps.items():
        counts = bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)
        assert counts == (4, 0), f"max_entries {capacity:#x}"
        assert sorted(map(bytes, bpf.iterate_keys(fd))) == expected, f"max_entries {capacity:#x}"
        assert bpf.map_info(fd).max_entries == capacity
