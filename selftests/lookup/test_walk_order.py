# SPDX-License-Identifier: GPL-2.0-only
"""Key walks: a position follows from the key alone, whether or not the key is still in the map.

The tests make no assumption about the order.  They take it from a walk over a map that does not
change.
"""

import errno
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow

WALKS = 40
"""Walks at once; more than any number of positions that a map could reasonably remember."""

_PROTOCOLS = (IPPROTO_UDP, IPPROTO_TCP)


def _open(open_connection: OpenConnection, count: int, first_port: int = 7200) -> list[Connection]:
    """Open connections of both protocols and IP versions, each to a port of its own."""
    return [
        open_connection(
            _PROTOCOLS[number // 2 % 2], 6 if number % 2 else 4, server_port=first_port + number
        )
        for number in range(count)
    ]


def _next_or_none(fd: int, key: uapi.Key | None) -> bytes | None:
    try:
        return bytes(bpf.next_key(fd, key))
    except FileNotFoundError:
        return None


def _walk(fd: int) -> list[bytes]:
    return list(map(bytes, bpf.iterate_keys(fd)))


def _key(raw: bytes) -> uapi.Key:
    return uapi.Key.from_buffer_copy(raw)


def _end_flow(fd: int, flow: Flow, namespace: str) -> None:
    """Delete a flow's conntrack entry and wait until the map has no entry of the flow."""
    before = bpf.flowmap_entry_count(fd)
    conntrack.delete(flow.entry.original, namespace)
    wait_for("the flow to be removed", lambda: bpf.flowmap_entry_count(fd) < before)


@pytest.mark.clause("FM-6.1", "FM-6.6")
def test_walk_visits_each_key_once_and_in_same_order(
    flowmap: int, open_connection: OpenConnection
) -> None:
    """Walks over a map that does not change visit each key once, always in the same order."""
    flows = [conn.wait_offloaded() for conn in _open(open_connection, 12)]
    walk = _walk(flowmap)
    assert sorted(walk) == sorted(bytes(key) for flow in flows for key in flow.keys)
    assert _walk(flowmap) == walk
    assert _next_or_none(flowmap, _key(walk[-1])) is None


@pytest.mark.clause("FM-6.6", "SN-9.2")
def test_position_is_the_same_in_each_map(
    router: Router, flowmap: int, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """A map that saw the flows being added and one that was created later have the same order."""
    for conn in _open(open_connection, 8):
        conn.wait_offloaded()
    later = make_flowmap(router.namespace)
    walk = _walk(flowmap)
    assert len(walk) == 16
    assert _walk(later) == walk
    following = [_next_or_none(later, _key(raw)) for raw in walk]
    assert following == [*walk[1:], None]


@pytest.mark.clause("FM-6.6")
def test_walk_after_flow_of_position_returned_reaches_rest(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """A walk goes on from a key whose flow ended and began again, among flows added meanwhile.

    For every position, the next key is the one that follows in a walk over the map as it is.
    """
    conns = _open(open_connection, 3)
    flows = [conn.wait_offloaded() for conn in conns]
    positions = _walk(flowmap)
    for conn, flow in zip(conns, flows, strict=True):
        _end_flow(flowmap, flow, router.namespace)
        for new_conn in _open(open_connection, 1, 7300 + conn.tuple.destination_port % 100):
            new_conn.wait_offloaded()
        assert list(map(bytes, conn.wait_offloaded().keys)) == list(map(bytes, flow.keys))
    walk = _walk(flowmap)
    assert set(positions) < set(walk)
    for raw in positions:
        following = walk[walk.index(raw) + 1 :]
        assert _next_or_none(flowmap, _key(raw)) == (following[0] if following else None)


@pytest.mark.clause("FM-6.5", "FM-6.8")
@pytest.mark.parametrize("refill", [False, True], ids=["removed", "removed-and-others-added"])
def test_walk_from_removed_key_goes_on_where_it_was(
    router: Router, flowmap: int, open_connection: OpenConnection, refill: bool
) -> None:
    """From a key that has left the map, the walk goes on with the next key that is left."""
    conns = _open(open_connection, 6)
    flows = {conn.tuple: conn.wait_offloaded() for conn in conns}
    order = _walk(flowmap)
    removed = [flows[conn.tuple] for conn in conns[::2]]
    for flow in removed:
        _end_flow(flowmap, flow, router.namespace)
    if refill:
        for conn in _open(open_connection, 3, 7400):
            conn.wait_offloaded()
    walk = _walk(flowmap)
    for flow in removed:
        for key in flow.keys:
            behind = set(order[order.index(bytes(key)) + 1 :])
            left = [raw for raw in walk if raw in behind]
            rest = []
            raw = _next_or_none(flowmap, key)
            while raw is not None:
                rest.append(raw)
                assert len(rest) <= len(walk), "the walk does not end"
                raw = _next_or_none(flowmap, _key(raw))
            # Keys that were behind the position are still to come, none before it comes again.
            assert [raw for raw in rest if raw in order] == left
            assert rest == walk[len(walk) - len(rest) :]


@pytest.mark.clause("FM-6.6", "FM-6.7")
def test_many_walks_at_once_are_complete(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """Walks that advance in turns, while flows end, each visit every flow that stays once."""
    conns = _open(open_connection, 10)
    flows = [conn.wait_offloaded() for conn in conns]
    staying = {bytes(key) for flow in flows[::2] for key in flow.keys}
    ending = flows[1::2]
    positions: list[uapi.Key | None] = [None] * WALKS
    visited: list[list[bytes]] = [[] for _ in range(WALKS)]
    # Walk number N starts in turn N, so that positions differ.
    turns = WALKS + 2 * len(flows) + 1
    for turn in range(turns):
        if turn % (turns // len(ending)) == 1 and ending:
            _end_flow(flowmap, ending.pop(), router.namespace)
        for number in range(min(turn, WALKS)):
            if visited[number] and positions[number] is None:
                continue  # at its end
            raw = _next_or_none(flowmap, positions[number])
            positions[number] = None if raw is None else _key(raw)
            visited[number] += [] if raw is None else [raw]
    for number, seen in enumerate(visited):
        assert len(set(seen)) == len(seen), f"walk {number} visited a key twice"
        assert staying <= set(seen), f"walk {number} was cut short"


@pytest.mark.clause("FM-6.2", "FM-6.7")
def test_walk_ends_while_flows_end_and_begin(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """A walk ends although before each step a flow ends and another begins."""
    conns = _open(open_connection, 4)
    for conn in conns:
        conn.wait_offloaded()
    seen: list[bytes] = []
    raw = _next_or_none(flowmap, None)
    while raw is not None:
        assert raw not in seen, "a walk that goes in order visits no key twice"
        seen.append(raw)
        conn = conns[len(seen) % len(conns)]
        conntrack.delete(conn.tuple, router.namespace)
        # The next packets make a new conntrack entry and a new flow with the same keys.
        conn.wait_offloaded()
        raw = _next_or_none(flowmap, _key(raw))
    assert len(seen) <= 2 * len(conns)


def _with_family(key: uapi.Key, family: int) -> uapi.Key:
    changed = _key(bytes(key))
    changed.l3proto = family
    return changed


def _with_reserved(key: uapi.Key, octet: int) -> uapi.Key:
    changed = _key(bytes(key))
    changed.reserved[octet] = 1
    return changed


@pytest.mark.clause("FM-6.9")
def test_next_key_of_key_that_no_flow_can_have_is_first(
    flowmap: int, open_connection: OpenConnection
) -> None:
    """From a key that no flow can have the walk starts at the beginning, as without a key.

    Such are another address family and octets in ``reserved``; common libraries start walks with
    a key of zeroes.
    """
    flows = [conn.wait_offloaded() for conn in _open(open_connection, 4)]
    first = _next_or_none(flowmap, None)
    assert first is not None
    for flow in flows:
        impossible = [uapi.Key(), _key(b"\xff" * uapi.KEY_SIZE)]
        impossible += [_with_family(flow.original, family) for family in (0, 1, 7, 255)]
        impossible += [_with_reserved(flow.reply, octet) for octet in range(3)]
        for key in impossible:
            assert _next_or_none(flowmap, key) == first, key


@pytest.mark.clause("FM-6.2")
def test_next_key_in_empty_map_is_enoent(
    flowmap: int, open_connection: OpenConnection, router: Router
) -> None:
    """In an empty map every key is followed by the end."""
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    _end_flow(flowmap, flow, router.namespace)
    for key in (None, uapi.Key(), *flow.keys):
        with expect_errno(errno.ENOENT):
            bpf.next_key(flowmap, key)


@pytest.mark.clause("FM-6.3", "FM-6.6")
@pytest.mark.parametrize("size", [1, 3, 7, 64], ids="batch-{}".format)
def test_many_batch_walks_at_once_are_complete(
    flowmap: int, open_connection: OpenConnection, size: int
) -> None:
    """Batch walks that advance in turns each return every key once, whatever the batch's size."""
    flows = [conn.wait_offloaded() for conn in _open(open_connection, 10)]
    expected = sorted(bytes(key) for flow in flows for key in flow.keys)
    cursors: list[object] = [None] * WALKS
    ended = [False] * WALKS
    seen: list[list[bytes]] = [[] for _ in range(WALKS)]
    while not all(ended):
        for number in range(WALKS):
            if not ended[number]:
                pairs, cursors[number], ended[number] = bpf.lookup_batch(
                    flowmap, size, cursors[number]
                )
                seen[number] += [bytes(key) for key, _ in pairs]
                assert len(seen[number]) <= len(expected), "the walk does not end"
    for keys in seen:
        assert sorted(keys) == expected


@pytest.mark.clause("FM-1.3", "FM-6.3", "FM-11.1")
@pytest.mark.parametrize("flow_count", [1, 3], ids="{}-flows".format)
def test_walk_of_full_map_has_max_entries_keys(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
    flow_count: int,
) -> None:
    """A full map has ``max_entries`` keys, so a reader that stops after as many misses none."""
    cleanup.callback(conntrack.flush, router.namespace)
    fd = make_flowmap(router.namespace, max_entries=uapi.keys_for_flows(flow_count))
    for conn in _open(open_connection, flow_count + 2):
        conn.wait_offloaded()
    assert bpf.flowmap_entry_count(fd) == flow_count
    assert bpf.flowmap_missed_count(fd) == 2
    assert len(_walk(fd)) == bpf.map_info(fd).max_entries
    assert {bytes(key) for key, _ in bpf.lookup_batch(fd, 64)[0]} == set(_walk(fd))
