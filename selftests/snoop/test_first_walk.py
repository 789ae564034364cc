# SPDX-License-Identifier: GPL-2.0-only
"""The first walk of a view: capacity reached in it, and hash tables that grow during it."""

from collections.abc import Sequence
from functools import partial

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.net import conntrack, tc
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import act_ct_offload
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow
from selftests.races import interleavings

_WORKER = "kworker"
_WALK_STEP = "nf_flow_index_join_one"
"""Called by the first walk for each flow, in an RCU read-side section."""
# An empty hash table has 64 buckets, and grows when three quarters have been used.
_BEFORE, _DURING = 20, 40

split_source_tables = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="split")], ids=router_config_id, indirect=True
)


def _counts(fd: int) -> tuple[int, int]:
    return bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)


def _found(fd: int, flows: Sequence[Flow]) -> list[Flow]:
    """Return the flows that are found; each must be found in both directions or in none."""
    found = []
    for flow in flows:
        directions = interleavings.lookup_directions(fd, flow.keys)
        assert directions in ([0, 1], [None, None])
        found += [flow] if directions == [0, 1] else []
    return found


@pytest.mark.clause("SN-3.1", "SN-7.4", "FM-11.1", "FM-11.3")
@split_source_tables
def test_capacity_reached_in_first_walk_counts_the_rest_once(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
) -> None:
    """A map takes as many existing flows as it has room for, and counts each other one once.

    The flows belong to three source tables.  A place that is given back goes to the next new flow;
    the missed flows are forwarded as before, and a larger map has all.
    """
    kinds = ((IPPROTO_TCP, 4), (IPPROTO_TCP, 6), (IPPROTO_UDP, 4), (IPPROTO_UDP, 6))
    conns = [
        open_private_connection(*kinds[number % 4], server_port=7100 + number)
        for number in range(6)
    ]
    namespace = private_router.namespace
    for number, capacity in enumerate((1, 3, 5, 6, 7)):
        flows = [conn.wait_offloaded() for conn in conns]
        small, large = (
            make_flowmap(namespace, uapi.keys_for_flows(room)) for room in (capacity, 100)
        )
        found = _assert_room_taken(small, flows, capacity)
        assert _assert_room_taken(large, flows, 100) == flows
        for conn in conns:
            conn.exchange()
            assert (entry := conn.conntrack_entry()) is not None
            assert entry.offloaded

        gone = conns.pop(flows.index(found[0]))
        conntrack.delete(gone.tuple, namespace)
        taken = len(found) - 1
        wait_for("the place to be free", partial(_has_entries, small, taken))
        missed = bpf.flowmap_missed_count(small)
        conns.append(open_private_connection(IPPROTO_UDP, 4, server_port=7200 + number))
        added = conns[-1].wait_offloaded()
        assert _counts(small) == (len(found), missed), capacity
        assert _found(small, [*found, added]) == [*found[1:], added], capacity


def _has_entries(fd: int, entries: int) -> bool:
    return bpf.flowmap_entry_count(fd) == entries


def _assert_room_taken(fd: int, flows: list[Flow], capacity: int) -> list[Flow]:
    """Require that a map has as many of the flows as it has room for; return these."""
    taken = min(capacity, len(flows))
    assert _counts(fd) == (taken, len(flows) - taken), capacity
    found = _found(fd, flows)
    assert len(found) == taken
    keys = sorted(bytes(key) for flow in found for key in flow.keys)
    assert sorted(map(bytes, bpf.iterate_keys(fd))) == keys, capacity
    return found


@pytest.mark.clause("SN-2.3", "SN-3.1", "FM-11.1")
def test_first_walk_takes_flows_of_act_ct_and_nft(
    private_router: Router, open_private_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """The first walk counts flows of act_ct's tables and of nft's against the same capacity."""
    namespace = private_router.namespace
    by_nft = open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    tc.add_act_ct(["r0", "r1"], act_ct_offload.ZONE, namespace)
    by_tc = act_ct_offload.wait_offloaded(open_private_connection(IPPROTO_UDP, 6, server_port=7002))
    keys = sorted(map(bytes, (*by_nft.keys, *by_tc)))
    for capacity in (1, 2, 3):
        fd = make_flowmap(namespace, uapi.keys_for_flows(capacity))
        assert _counts(fd) == (min(capacity, 2), max(2 - capacity, 0))
        walked = sorted(map(bytes, bpf.iterate_keys(fd)))
        assert len(walked) == 2 * min(capacity, 2)
        assert set(walked) <= set(keys)


@pytest.mark.clause("SN-3.2", "SN-3.3", "RT-1.1")
@pytest.mark.usefixtures("pinned_to_test_cpu", "require_preempt_rcu")
@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    ("walked", "removed"),
    [(0, False), (1, True), (10, True)],
    ids=["at-first-flow", "at-second-flow", "at-tenth-flow"],
)
def test_first_walk_during_growth_of_the_source_table_misses_no_flow(
    private_router: Router, open_private_connection: OpenConnection, walked: int, removed: bool
) -> None:
    """While the first walk is held at a flow, the source table grows: the map has each flow once.

    The flows that end meanwhile, some of them before the walk has reached them, are not in it.
    """

    def offload(first: int, count: int) -> list[Connection]:
        conns = [
            open_private_connection(IPPROTO_UDP, 6 if number % 2 else 4, server_port=7000 + number)
            for number in range(first, first + count)
        ]
        for conn in conns:
            conn.wait_offloaded()
        return conns

    conns = offload(0, _BEFORE)
    namespace = private_router.namespace

    def create_and_read() -> tuple[list[bytes], int, int]:
        with bpf.open_flowmap(namespace) as fd:
            return (sorted(map(bytes, bpf.iterate_keys(fd))), *_counts(fd))

    creator = child_process.GatedChild(create_and_read)
    with stop_at(_WALK_STEP, comm=_WORKER, skip=walked, timeout=60.0) as walk:
        creator.start()
        walk.wait_until_held()
        conns += offload(_BEFORE, _DURING)
        if removed:
            for conn in conns[::3]:
                conntrack.delete(conn.tuple, namespace)
            del conns[::3]
        walk.release()
    expected = sorted(bytes(key) for conn in conns for key in interleavings.expected_keys(conn))
    result = creator.join()
    assert isinstance(result, tuple)
    keys, entries, missed = result
    assert keys == expected
    # Ended flows count until garbage collection has removed them.
    assert entries >= len(conns)
    assert missed == 0
