# SPDX-License-Identifier: GPL-2.0-only
"""Walks and batches over flows that have ended while garbage collection is kept from running."""

import errno
from contextlib import suppress

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow

_GARBAGE_COLLECTION = "nf_flow_offload_work_gc"
_FLOWS = 24


def _offload(open_connection: OpenConnection, first: int, count: int) -> list[Flow]:
    return [
        open_connection(
            IPPROTO_UDP, 6 if number % 2 else 4, server_port=7000 + number
        ).wait_offloaded()
        for number in range(first, first + count)
    ]


@pytest.mark.clause("FM-6.5", "FM-6.10")
@pytest.mark.deadline(60)
@pytest.mark.usefixtures("pinned_to_test_cpu", "require_preempt_rcu")
def test_walk_over_ended_flows_finds_the_others_only(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """While entries of ended flows are still there, walk and batch return the others' keys only.

    From a key of an ended flow the walk goes on.  First no flow is left, then there are new ones.
    """
    namespace = private_router.namespace
    ended = _offload(open_private_connection, 0, _FLOWS)
    with stop_at(_GARBAGE_COLLECTION, comm="kworker", timeout=30) as collection:
        collection.wait_until_held()
        conntrack.flush(namespace)
        assert bpf.flowmap_entry_count(private_flowmap) == _FLOWS
        keys = [key for flow in ended for key in flow.keys]
        for key in (None, *keys):
            with expect_errno(errno.ENOENT):
                bpf.next_key(private_flowmap, key)
        assert bpf.lookup_batch(private_flowmap, 64)[0] == []

        new = _offload(open_private_connection, 100, 3)
        expected = sorted(bytes(key) for flow in new for key in flow.keys)
        walk = list(map(bytes, bpf.iterate_keys(private_flowmap)))
        assert sorted(walk) == expected
        for size in (1, 4, 64):
            found: list[bytes] = []
            cursor, is_last = None, False
            while not is_last:
                pairs, cursor, is_last = bpf.lookup_batch(private_flowmap, size, cursor)
                found += [bytes(key) for key, _ in pairs]
                assert len(found) <= len(walk), "the batches do not end"
            assert found == walk, size
        for key in keys:
            with suppress(FileNotFoundError):
                assert bytes(bpf.next_key(private_flowmap, key)) in walk
        # All entries were there until the end.
        assert bpf.flowmap_entry_count(private_flowmap) == _FLOWS + len(new)
        collection.release()
    wait_for(
        "the ended flows to be removed",
        lambda: bpf.flowmap_entry_count(private_flowmap) == len(new),
    )
