# SPDX-License-Identifier: GPL-2.0-only
"""The loops of common loaders read the whole map: see selftests/clients/loader_loops.py."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from selftests.clients.client_parts import flow_keys, offload_flows, read_pairs
from selftests.clients.loader_loops import BATCH_LOOPS, KEY_LOOPS, Loops

_LOOPS = KEY_LOOPS | BATCH_LOOPS
_FLOWS = 5


@pytest.mark.clause("FM-6.1", "FM-6.3", "FM-1.3")
def test_loop_reads_each_entry_once(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """Every loop returns each key with its value once, from a map with room and from a full one.

    A full map has ``max_entries`` keys, or one key less if the number is odd.  Another flow, which
    it missed, changes nothing.
    """
    cleanup.callback(conntrack.flush, router.namespace)
    keys = uapi.keys_for_flows(_FLOWS)
    fds = {
        "room": make_flowmap(router.namespace),
        "full": make_flowmap(router.namespace, max_entries=keys),
        "odd": make_flowmap(router.namespace, max_entries=keys + 1),
        "version 0": make_flowmap(
            router.namespace, max_entries=keys, value_size=uapi.VALUE_SIZE_VER0
        ),
    }
    flows = offload_flows(open_connection, _FLOWS + 1)
    kept = flow_keys(flows[:_FLOWS])
    for kind, fd in fds.items():
        expected = read_pairs(fd)
        assert {key for key, _ in expected} == (flow_keys(flows) if kind == "room" else kept)
        for name, loop in _LOOPS.items():
            assert list(loop(fd)) == expected, f"{name}, map {kind}"


@pytest.mark.clause("FM-6.2", "FM-6.10")
def test_loop_over_empty_map_returns_nothing(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """Every loop ends at once in a map that never had a flow, and after its flows have ended."""
    cleanup.callback(conntrack.flush, router.namespace)
    never, ended = make_flowmap(), make_flowmap(router.namespace)
    for flow in offload_flows(open_connection, 2):
        conntrack.delete(flow.entry.original, router.namespace)
    for name, loop in _LOOPS.items():
        assert list(loop(never)) == [], name
        assert list(loop(ended)) == [], name


@pytest.mark.clause("FM-6.5", "FM-6.7")
@pytest.mark.parametrize("loops", [KEY_LOOPS, BATCH_LOOPS], ids=["by-key", "by-batch"])
def test_loop_while_flows_end_reads_those_that_stay(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, loops: Loops
) -> None:
    """A loop during which flows end returns no key twice, and each flow that stays.

    The flow of every second key that the loop returns ends at once, so the position of the loop is
    a key that has left the map.  Loops that have a chunk or all keys already may return others
    that have ended.
    """
    fd = make_flowmap(router.namespace)
    for number, (name, loop) in enumerate(loops.items()):
        flows = offload_flows(open_connection, 6, first_port=7500 + 10 * number)
        by_key = {bytes(key): flow for flow in flows for key in flow.keys}
        staying = set(by_key)
        seen: list[bytes] = []
        for step, (key, value) in enumerate(loop(fd)):
            assert len(value) == uapi.VALUE_SIZE, name
            seen.append(key)
            if step % 2 == 0 and key in staying:
                flow = by_key[key]
                conntrack.delete(flow.entry.original, router.namespace)
                staying -= flow_keys([flow])
            assert len(seen) <= len(by_key), f"{name} does not end"
        assert len(set(seen)) == len(seen), f"{name} returned a key twice"
        missing = staying - set(seen)
        assert not missing, f"{name} missed {len(missing)} keys of flows that stayed"
        assert {key for key, _ in read_pairs(fd)} == staying, name
        conntrack.flush(router.namespace)
        assert read_pairs(fd) == []
