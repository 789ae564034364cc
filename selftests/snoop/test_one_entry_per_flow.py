# SPDX-License-Identifier: GPL-2.0-only
"""However many views a namespace has, a flow has one entry (SN-13)."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import series
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

_ENTRY_CACHE = series.SLAB_CACHES[1]
_FLOWS, _VIEWS = 48, 32
_TOLERANCE = _FLOWS * _VIEWS // 4
"""Objects that the slab allocator may keep for later; far fewer than an entry for each view."""


def _entry_objects() -> int:
    """Return the number of allocated entries; skip without /sys/kernel/slab."""
    objects = Path("/sys/kernel/slab", _ENTRY_CACHE, "objects")
    if not objects.exists():
        pytest.skip("the kernel does not count the objects of its slab caches (CONFIG_SLUB_DEBUG)")
    return int(objects.read_text().split()[0])


def _offload_flows(open_connection: OpenConnection, count: int) -> list[Flow]:
    """Offload connections of both protocols and IP versions."""
    return [
        open_connection(
            IPPROTO_TCP if number % 8 == 0 else IPPROTO_UDP,
            6 if number % 2 else 4,
            server_port=7200 + number,
        ).wait_offloaded()
        for number in range(count)
    ]


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


@pytest.fixture
def lasting_flows(private_router: Router) -> Router:
    """`private_router`, whose flows do not expire while many maps are created."""
    settings = dict.fromkeys(("tcp", "udp"), 3600)
    netns.set_sysctls(
        private_router.namespace,
        {f"netfilter/nf_flowtable_{name}_timeout": value for name, value in settings.items()},
    )
    return private_router


@pytest.mark.clause("SN-13.1", "SN-9.2")
@pytest.mark.parametrize("order", ["views-first", "flows-first"])
@pytest.mark.deadline(120)
def test_flow_in_many_views_has_one_entry(
    lasting_flows: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    order: str,
) -> None:
    """Entries are as many as flows, whether the flows or the views are there first."""
    namespace = lasting_flows.namespace
    maps = [make_flowmap(namespace)]
    before = _entry_objects()
    flows: list[Flow] = []
    if order == "flows-first":
        flows = _offload_flows(open_private_connection, _FLOWS)
    maps += [make_flowmap(namespace) for _ in range(_VIEWS - 1)]
    if order == "views-first":
        flows = _offload_flows(open_private_connection, _FLOWS)
    for fd in maps:
        assert bpf.flowmap_entry_count(fd) == _FLOWS
    for flow in flows[::8]:
        for fd in maps[::4]:
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    assert _entry_objects() - before <= _TOLERANCE


@pytest.mark.clause("SN-9.2", "SN-9.3", "SN-13.7")
@pytest.mark.deadline(120)
def test_views_leave_one_by_one(
    lasting_flows: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
) -> None:
    """When views are removed one after another, those that are left keep every flow."""
    namespace = lasting_flows.namespace
    cleanup.callback(conntrack.flush, namespace)
    flows = _offload_flows(open_private_connection, 4)
    for number in range(3):
        flowtable.create_snoop_table(f"spy{number}", "all", namespace)
    maps: list[int] = []
    cleanup.callback(_close_all, maps)
    with netns.entered(namespace):
        maps += [bpf.flowmap_create() for _ in range(6)]
    for number in range(3):
        os.close(maps.pop(number))
        flowtable.drop_table(f"spy{number}", namespace)
        for fd in maps:
            assert bpf.flowmap_entry_count(fd) == len(flows)
            for flow in flows:
                assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
        for later in range(number + 1, 3):
            assert flowtable.snoop_counters(f"spy{later}", "all", namespace) == (len(flows), 0)
    added = open_private_connection(IPPROTO_UDP, 4, server_port=7300).wait_offloaded()
    for fd in maps:
        assert [bpf.lookup(fd, key).dir for key in added.keys] == [0, 1]
    _close_all(maps)
    # The next map takes a place that another view had, and has the flows only once.
    again = make_flowmap(namespace)
    assert bpf.flowmap_entry_count(again) == len(flows) + 1
    assert len(list(bpf.iterate_keys(again))) == 2 * (len(flows) + 1)
    conntrack.flush(namespace)
    wait_for("the flows to leave", lambda: bpf.flowmap_entry_count(again) == 0)
