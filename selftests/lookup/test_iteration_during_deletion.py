# SPDX-License-Identifier: GPL-2.0-only
"""BPF_MAP_GET_NEXT_KEY and batches on a map that changes during the iteration."""

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import ftrace
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow

# Returns the iteration's next key, or None at its end.
Step = Callable[[], uapi.Key | None]

MAX_CHECKS_PER_KEY = 8
"""Upper bound of entries that one step of an iteration considers, on average."""


def _get_next_key(fd: int) -> Step:
    """Iterate with BPF_MAP_GET_NEXT_KEY."""
    last: uapi.Key | None = None

    def step() -> uapi.Key | None:
        nonlocal last
        try:
            last = bpf.next_key(fd, last)
        except FileNotFoundError:
            return None
        return last

    return step


def _lookup_batch(fd: int) -> Step:
    """Iterate with BPF_MAP_LOOKUP_BATCH, one entry a call."""
    cursor = None

    def step() -> uapi.Key | None:
        nonlocal cursor
        pairs, cursor, _ = bpf.lookup_batch(fd, 1, cursor)
        return pairs[0][0] if pairs else None

    return step


def _offload_flows(connection: OpenConnection, count: int) -> list[Flow]:
    """Offload ``count`` UDP connections, alternating IPv6 and IPv4."""
    return [
        connection(IPPROTO_UDP, 4 if port % 2 else 6, server_port=7200 + port).wait_offloaded()
        for port in range(count)
    ]


@pytest.mark.clause("FM-6.10")
def test_get_next_key_skips_many_dead_flows(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """BPF_MAP_GET_NEXT_KEY skips 150 dead flows to reach a new one.

    They have more keys than the kernel passes between two reschedules (256).
    """
    flows = _offload_flows(open_connection, 150)
    assert len(list(bpf.iterate_keys(flowmap))) == 2 * len(flows)
    conntrack.flush(router.namespace)
    # Usually garbage collection has not yet removed all of them.
    with expect_errno(errno.ENOENT):
        bpf.next_key(flowmap, None)
    (new_flow,) = _offload_flows(open_connection, 1)
    assert sorted(map(bytes, bpf.iterate_keys(flowmap))) == sorted(map(bytes, new_flow.keys))


@pytest.mark.clause("FM-6.5", "FM-6.7", "FM-6.10")
@pytest.mark.parametrize(
    "start_iteration", [_get_next_key, _lookup_batch], ids=["get-next-key", "lookup-batch"]
)
@pytest.mark.parametrize("steps", [1, 2, 5], ids="after-{}-keys".format)
def test_iteration_after_deletion_of_last_key_continues(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    steps: int,
    start_iteration: Callable[[int], Step],
) -> None:
    """An iteration goes on after conntrack deletes the flow that it returned last."""
    flows = _offload_flows(open_connection, 5)
    step = start_iteration(flowmap)
    seen = [step() for _ in range(steps)]
    last = seen[-1]
    assert last is not None
    (deleted,) = [flow for flow in flows if bytes(last) in map(bytes, flow.keys)]
    conntrack.delete(deleted.entry.original, router.namespace)

    # Every other key exactly once, before or after; the deleted flow's keys not any more.
    visited = [bytes(key) for key in seen if key is not None]
    while (key := step()) is not None:
        assert bytes(key) not in map(bytes, deleted.keys)
        visited.append(bytes(key))
        assert len(visited) <= 2 * len(flows), "the iteration does not end"
    others = [bytes(key) for flow in flows if flow is not deleted for key in flow.keys]
    removed = set(map(bytes, deleted.keys))
    assert sorted(key for key in visited if key not in removed) == sorted(others)


@pytest.mark.clause("FM-6.6")
def test_iteration_checks_few_entries_per_key(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """An iteration does not consider each entry for each key, also after deletions.

    The kernel checks the route of each entry that it considers.
    """
    flows = _offload_flows(open_connection, 40)
    for flow in flows[::2]:
        conntrack.delete(flow.entry.original, router.namespace)
    left = len(flows) // 2
    wait_for("the deleted flows to leave the map", lambda: bpf.flowmap_entry_count(flowmap) == left)
    with ftrace.count_calls("ipv4_dst_check", "ip6_dst_check") as called:
        assert len(list(bpf.iterate_keys(flowmap))) == 2 * left
        checks = called().total()
    assert 2 * left <= checks <= MAX_CHECKS_PER_KEY * 2 * left


@pytest.mark.clause("FM-3.1")
def test_get_next_key_returns_no_stale_memory(
    flowmap: int, open_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """A returned key contains no stale memory.

    The kernel has just freed, on the same CPU, its copy of a key whose bits are all set.
    """
    expected = set(map(bytes, open_connection(IPPROTO_UDP, 4).wait_offloaded().keys))
    cleanup.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
    os.sched_setaffinity(0, {0})
    ones = uapi.Key()
    ctypes.memset(ctypes.addressof(ones), 0xFF, ctypes.sizeof(ones))
    for _ in range(64):
        with expect_errno(errno.EINVAL):
            bpf.lookup(flowmap, ones)
        assert bytes(bpf.next_key(flowmap, None)) in expected
