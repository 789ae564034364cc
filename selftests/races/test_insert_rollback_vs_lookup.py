# SPDX-License-Identifier: GPL-2.0-only
"""Partial insertion: the second direction of a flow does not fit into a full hash table.

The first direction was inserted before, so a lookup may hold the entry that is removed again.
"""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel import fault_injection
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.pytest_plugin.plugin_api import (
    OpenConnection,
    require_fault_injection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_UDP, Connection, key_from_tuple
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu", "require_preempt_rcu")

MAX_FLOWS = 40


def _fill(fd: int, conns: list[Connection]) -> None:
    """Exchange packets until the map's hash table refuses a flow."""
    for conn in conns:
        for _ in range(3):
            conn.exchange()
        if bpf.flowmap_missed_count(fd):
            return
    raise AssertionError(f"the hash table accepted all {len(conns)} flows")


@pytest.mark.clause("SN-7.1", "SN-7.4", "RT-1.1")
@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="split")], ids=router_config_id, indirect=True
)
def test_lookup_of_half_inserted_flow_survives_its_removal(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """A lookup that holds a half-inserted entry survives its removal, and later lookups miss."""
    require_fault_injection()
    conn = open_private_connection(IPPROTO_UDP, 4)
    # Alternate between two source tables, so that neither is full.
    others = [
        open_private_connection(IPPROTO_UDP, (4, 6)[number % 2], server_port=7001 + number)
        for number in range(MAX_FLOWS)
    ]
    key = key_from_tuple(conn.tuple, private_router.lan.ifindex)
    sender = interleavings.gated_sender(conn)
    reader = child_process.GatedChild(
        lambda: bpf.lookup_or_none(private_flowmap, key) is not None, TEST_CPU
    )
    # A lookup that found the entry checks the route, then writes to the entry.
    with (
        stop_at("ipv4_dst_check", tgid=reader.pid) as lookup,
        stop_at("rhashtable_insert_slow", offset=0, cpu=HELD_CPU) as insertion,
        fault_injection.fail_slab_cache(fault_injection.HASH_TABLE_GROWTH_CACHE),
    ):
        _fill(private_flowmap, others)
        missed_before = bpf.flowmap_missed_count(private_flowmap)
        sender.start()
        insertion.wait_until_held(busy_poll=True)
        reader.start()
        lookup.wait_until_held(busy_poll=True)
        insertion.release()
        sender.join()
        assert bpf.flowmap_missed_count(private_flowmap) == missed_before + 1
        assert bpf.lookup_or_none(private_flowmap, key) is None
        lookup.release()
        assert reader.join() is True
    ct_entry = conn.conntrack_entry()
    assert ct_entry is not None
    assert ct_entry.offloaded
    assert bpf.lookup_or_none(private_flowmap, key) is None
