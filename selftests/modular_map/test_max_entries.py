# SPDX-License-Identifier: GPL-2.0-only
"""``max_entries`` of a flow map counts keys: two for each flow."""

import errno

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection

_U32_MAX = 0xFFFFFFFF


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.3", "MM-5.1")
@pytest.mark.parametrize("max_entries", [0, 1])
def test_map_without_room_for_a_flow_is_einval(flowmap_loaded: str, max_entries: int) -> None:
    """A capacity below the two keys of one flow gives EINVAL and leaves no module reference."""
    assert errno_of(lambda: bpf.flowmap_create(max_entries)) == errno.EINVAL
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.3")
@pytest.mark.parametrize("max_entries", [2, 3, 4, 1 << 20, _U32_MAX - 1, _U32_MAX])
def test_map_with_room_for_a_flow_is_created(make_flowmap: MakeFlowmap, max_entries: int) -> None:
    """Any larger capacity, odd ones included, is accepted and reported as requested."""
    assert bpf.map_info(make_flowmap(max_entries=max_entries)).max_entries == max_entries


def _open(open_connection: OpenConnection, count: int) -> list[Connection]:
    """Open connections of all kinds, which are not yet offloaded."""
    return [
        open_connection(
            IPPROTO_TCP if number % 2 else IPPROTO_UDP,
            6 if number // 2 % 2 else 4,
            server_port=7200 + number,
        )
        for number in range(count)
    ]


@pytest.mark.clause("FM-1.3", "FM-11.1", "FM-11.2", "SN-7.2", "SN-7.4")
@pytest.mark.parametrize(
    ("max_entries", "capacity"), [(2, 1), (3, 1), (4, 2), (5, 2), (7, 3), (8, 4)]
)
@pytest.mark.parametrize("created", ["first", "last"], ids="map-created-{}".format)
def test_map_holds_half_as_many_flows_as_max_entries(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    max_entries: int,
    capacity: int,
    created: str,
) -> None:
    """A map takes ``max_entries`` / 2 flows, each with both keys, and counts the others as missed.

    Flows that were offloaded before the map was created count in the same way.
    """
    count = capacity + 2
    conns = _open(open_connection, count)
    fd = make_flowmap(router.namespace, max_entries) if created == "first" else -1
    flows = [conn.wait_offloaded() for conn in conns]
    if created == "last":
        fd = make_flowmap(router.namespace, max_entries)
    assert bpf.flowmap_entry_count(fd) == capacity
    assert bpf.flowmap_missed_count(fd) == count - capacity
    keys = set(map(bytes, bpf.iterate_keys(fd)))
    assert len(keys) == uapi.keys_for_flows(capacity) <= max_entries
    held = [flow for flow in flows if set(map(bytes, flow.keys)) <= keys]
    assert len(held) == capacity
    for flow in flows:
        found = [bpf.lookup_or_none(fd, key) for key in flow.keys]
        directions = [None if value is None else value.dir for value in found]
        assert directions == ([0, 1] if flow in held else [None, None])
    # The missed flows are offloaded all the same.
    assert len(conntrack.offloaded_entries(router.namespace)) == count


@pytest.mark.clause("FM-11.1", "FM-11.3", "SN-7.4", "SN-9.2")
def test_capacity_of_one_map_is_reused_and_leaves_other_maps(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """The end of a flow makes room for one more; a larger map at the same time has every flow."""
    small = make_flowmap(router.namespace, uapi.keys_for_flows(2))
    large = make_flowmap(router.namespace)
    flows = [conn.wait_offloaded() for conn in _open(open_connection, 3)]
    assert (bpf.flowmap_entry_count(small), bpf.flowmap_missed_count(small)) == (2, 1)
    assert (bpf.flowmap_entry_count(large), bpf.flowmap_missed_count(large)) == (3, 0)
    conntrack.delete(flows[0].entry.original, router.namespace)
    wait_for("the flow to leave both maps", lambda: bpf.flowmap_entry_count(large) == 2)
    assert bpf.flowmap_entry_count(small) == 1
    # The missed flow is not mirrored later; the next one is.
    assert bpf.lookup_or_none(small, flows[2].original) is None
    newest = open_connection(IPPROTO_TCP, 6, server_port=7300).wait_offloaded()
    for fd in (small, large):
        assert [bpf.lookup(fd, key).dir for key in newest.keys] == [0, 1]
    assert (bpf.flowmap_entry_count(small), bpf.flowmap_missed_count(small)) == (2, 1)
    assert (bpf.flowmap_entry_count(large), bpf.flowmap_missed_count(large)) == (3, 0)
