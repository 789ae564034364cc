# SPDX-License-Identifier: GPL-2.0-only
"""Walks over a map that changes meanwhile, and what a walk hands out."""

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import ftrace
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Flow

# Gives the next key of a walk, or None at its end.
Step = Callable[[], uapi.Key | None]

WALKS = 16
"""NF_FLOW_SNOOP_CURSORS: of how many a table remembers where they were."""


def _by_key(fd: int) -> Step:
    last: uapi.Key | None = None

    def step() -> uapi.Key | None:
        nonlocal last
        try:
            last = bpf.next_key(fd, last)
        except FileNotFoundError:
            return None
        return last

    return step


def _by_batch(fd: int) -> Step:
    cursor = None

    def step() -> uapi.Key | None:
        nonlocal cursor
        pairs, cursor, _ = bpf.lookup_batch(fd, 1, cursor)
        return pairs[0][0] if pairs else None

    return step


def _flows(connection: Connect, count: int) -> list[Flow]:
    return [
        connection(UDP_PROTOCOL, 4 if port % 2 else 6, server_port=7200 + port).offloaded()
        for port in range(count)
    ]


@pytest.mark.clause("FM-6", "SN-6")
def test_walk_passes_over_many_that_have_ended(
    router: Router, flowmap: int, connection: Connect
) -> None:
    """More than the kernel passes over with bottom halves off: NF_FLOW_SNOOP_BATCH."""
    flows = _flows(connection, 150)
    assert len(list(bpf.keys(flowmap))) == 2 * len(flows)
    conntrack.flush(router.namespace)
    # Before garbage collection has taken them all, as a rule.
    with refused(errno.ENOENT):
        bpf.next_key(flowmap, None)
    (after,) = _flows(connection, 1)
    assert sorted(map(bytes, bpf.keys(flowmap))) == sorted(map(bytes, after.keys))


@pytest.mark.clause("FM-6")
@pytest.mark.parametrize("walk", [_by_key, _by_batch], ids=["keys", "batches"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_walk_goes_on_where_its_last_flow_has_ended(
    router: Router,
    flowmap: int,
    connection: Connect,
    steps: int,
    walk: Callable[[int], Step],
) -> None:
    flows = _flows(connection, 5)
    step = walk(flowmap)
    seen = [step() for _ in range(steps)]
    last = seen[-1]
    assert last is not None
    (ended,) = [flow for flow in flows if bytes(last) in map(bytes, flow.keys)]
    conntrack.delete(ended.entry.original, router.namespace)

    # Each of the others once, whether before or after; no more of the one that has ended.
    walked = [bytes(key) for key in seen if key is not None]
    while (key := step()) is not None:
        assert bytes(key) not in map(bytes, ended.keys)
        walked.append(bytes(key))
        assert len(walked) <= 2 * len(flows), "the walk does not end"
    others = [bytes(key) for flow in flows if flow is not ended for key in flow.keys]
    gone = set(map(bytes, ended.keys))
    assert sorted(key for key in walked if key not in gone) == sorted(others)


@pytest.mark.clause("FM-6", "SN-6")
def test_so_many_walks_at_one_time_go_on_where_their_last_flows_have_ended(
    router: Router, flowmap: int, connection: Connect
) -> None:
    oldest, *ending = _flows(connection, WALKS + 1)
    walks = [_by_key(flowmap) for _ in range(WALKS)]
    # The first one goes furthest: none is to step on where another stands.
    for number, step in enumerate(walks):
        for _ in range(2 * (WALKS - number)):
            assert step() is not None
    for flow in ending:
        conntrack.delete(flow.entry.original, router.namespace)
    rest = [*map(bytes, oldest.keys), None]
    for step in walks:
        keys = [step() for _ in rest]
        assert [None if key is None else bytes(key) for key in keys] == rest


@pytest.mark.clause("FM-6")
def test_walk_steps_over_flows_that_have_gone_at_one_time(
    router: Router, flowmap: int, connection: Connect
) -> None:
    """Entries are numbered, and the walk does not count down to the next one that is there."""
    flows = _flows(connection, 24)
    newest, gone, next_one = flows[-1], flows[16:-1], flows[15]
    step = _by_key(flowmap)
    assert [bytes(step() or b"") for _ in newest.keys] == list(map(bytes, newest.keys))
    for flow in gone:
        conntrack.delete(flow.entry.original, router.namespace)
    left = len(flows) - len(gone)
    wait_for("them to leave the map", lambda: bpf.entries(flowmap) == left)

    # Asked of each entry that the walk looks at.
    with ftrace.calls("ipv4_dst_check", "ip6_dst_check") as called:
        assert bytes(step() or b"") == bytes(next_one.original)
        looks = called().total()
    assert 1 <= looks < len(gone)


@pytest.mark.clause("FM-6")
def test_key_that_was_never_there_ends_the_walk(flowmap: int, connection: Connect) -> None:
    flows = _flows(connection, 3)
    strange = uapi.Key.from_buffer_copy(flows[0].original)
    strange.ports.source ^= 1
    with refused(errno.ENOENT):
        bpf.next_key(flowmap, strange)
    assert len(list(bpf.keys(flowmap))) == 2 * len(flows)


@pytest.mark.clause("FM-6", "FM-3")
def test_key_that_a_walk_hands_out_has_nothing_of_old_memory(
    flowmap: int, connection: Connect, cleanup: ExitStack
) -> None:
    """The kernel's copy of a key full of ones has just been freed, on the same CPU."""
    expected = set(map(bytes, connection(UDP_PROTOCOL, 4).offloaded().keys))
    cleanup.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
    os.sched_setaffinity(0, {0})
    ones = uapi.Key()
    ctypes.memset(ctypes.addressof(ones), 0xFF, ctypes.sizeof(ones))
    for _ in range(64):
        with refused(errno.EINVAL):
            bpf.lookup(flowmap, ones)
        assert bytes(bpf.next_key(flowmap, None)) in expected
