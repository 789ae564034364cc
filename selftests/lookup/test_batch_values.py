# SPDX-License-Identifier: GPL-2.0-only
"""Values of a batch, batches of which flows go away, and walks during which flows are added."""

from itertools import count

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

_MOST_STEPS = 300
_PROTOCOLS = (IPPROTO_UDP, IPPROTO_TCP)

each_nat = pytest.mark.parametrize(
    "router", [RouterConfig(), RouterConfig(nat="snat+dnat")], ids=router_config_id, indirect=True
)


def _offload(open_connection: OpenConnection, number: int, first_port: int = 7200) -> list[Flow]:
    """Offload connections of both protocols and IP versions."""
    return [
        open_connection(
            _PROTOCOLS[at // 2 % 2], 6 if at % 2 else 4, server_port=first_port + at
        ).wait_offloaded()
        for at in range(number)
    ]


def _read_batches(fd: int, size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    cursor, ended = None, False
    while not ended:
        pairs, cursor, ended = bpf.lookup_batch(fd, size, cursor, value_size=value_size)
        found += [(bytes(key), bytes(value)) for key, value in pairs]
        assert len(found) < _MOST_STEPS, "the batches do not end"
    return found


@pytest.mark.clause("FM-6.3", "FM-13.2")
@each_nat
def test_batch_values_are_those_of_lookups(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Each key of a batch comes with the value that a lookup of the key returns, at any size.

    A batch is the first to read the values.
    """
    flows = _offload(open_connection, 6)
    keys = {bytes(key): key for flow in flows for key in flow.keys}
    for value_size in (uapi.VALUE_SIZE, uapi.VALUE_SIZE_VER0, 100):
        fd = make_flowmap(router.namespace, value_size=value_size)
        first = dict(_read_batches(fd, 64, value_size))
        assert sorted(first) == sorted(keys)
        expected = {raw: bytes(bpf.lookup(fd, key)) for raw, key in keys.items()}
        assert first == expected, value_size
        assert len(set(expected.values())) == len(expected)
        for size in (1, 2, 3, 5, 64):
            found = _read_batches(fd, size, value_size)
            assert len(found) == len(expected), (value_size, size)
            assert dict(found) == expected, (value_size, size)


@pytest.mark.clause("FM-6.3", "FM-6.5", "FM-6.7")
@pytest.mark.parametrize(
    ("gone", "size"), [("seen", 4), ("unseen", 7), ("every-other", 1), ("every-other", 5)]
)
def test_batches_go_on_after_half_of_the_flows_have_gone(
    router: Router, flowmap: int, open_connection: OpenConnection, size: int, gone: str
) -> None:
    """Half of the flows end after the first batch: each of the others is returned exactly once.

    The flows that end are those with a key in the first batch, those without, or every other one.
    """
    flows = _offload(open_connection, 8)
    pairs, cursor, ended = bpf.lookup_batch(flowmap, size)
    seen = [bytes(key) for key, _ in pairs]
    assert len(seen) == size
    in_batch = [flow for flow in flows if set(map(bytes, flow.keys)) & set(seen)]
    ending = {
        "seen": in_batch,
        "unseen": [flow for flow in flows if flow not in in_batch],
        "every-other": flows[::2],
    }[gone]
    conntrack.delete(ending[0].entry.original, router.namespace)
    left = len(flows) - 1
    wait_for("the entry to be removed", lambda: bpf.flowmap_entry_count(flowmap) == left)
    # The entries of these have perhaps not been removed yet.
    for flow in ending[1:]:
        conntrack.delete(flow.entry.original, router.namespace)
    rest: list[bytes] = []
    while not ended:
        pairs, cursor, ended = bpf.lookup_batch(flowmap, size, cursor)
        rest += [bytes(key) for key, _ in pairs]
        assert len(rest) < _MOST_STEPS, "the batches do not end"
    ended_keys = {bytes(key) for flow in ending for key in flow.keys}
    staying = {bytes(key) for flow in flows for key in flow.keys} - ended_keys
    assert not set(rest) & ended_keys
    assert sorted(key for key in [*seen, *rest] if key in staying) == sorted(staying)


@pytest.mark.clause("FM-6.2", "FM-6.7")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("walk", ["next-key", "batch-1", "batch-3"])
def test_walk_with_a_flow_added_after_every_step_ends(
    flowmap: int, open_connection: OpenConnection, walk: str
) -> None:
    """A flow is added after every step: the walk ends, and visits no key twice.

    It visits each flow that was there at its beginning, and of the others only what it has not
    passed.
    """
    initial = {bytes(key) for flow in _offload(open_connection, 2) for key in flow.keys}
    ports = count(8000)
    added: set[bytes] = set()
    visited: list[bytes] = []
    position: uapi.Key | None = None
    cursor, ended = None, False
    size = 0 if walk == "next-key" else int(walk[-1])
    while not ended:
        if size:
            pairs, cursor, ended = bpf.lookup_batch(flowmap, size, cursor)
            keys = [bytes(key) for key, _ in pairs]
        else:
            try:
                position = bpf.next_key(flowmap, position)
                keys = [bytes(position)]
            except FileNotFoundError:
                keys, ended = [], True
        assert not set(keys) & set(visited), "a key was visited twice"
        assert len(set(keys)) == len(keys)
        visited += keys
        if not ended:
            flow = open_connection(
                IPPROTO_UDP, 4 if len(visited) % 2 else 6, server_port=next(ports)
            ).wait_offloaded()
            added |= set(map(bytes, flow.keys))
        assert len(visited) < _MOST_STEPS, "the walk does not end"
    assert initial <= set(visited) <= initial | added
