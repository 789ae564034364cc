# SPDX-License-Identifier: GPL-2.0-only
"""Whose memcg an entry is charged to when views have no room, are removed, or lose their cgroup."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import memcg
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

_FLOWS = 96
_SLACK = (os.cpu_count() or 1) * os.sysconf("SC_PAGE_SIZE")
"""Bytes that may be uncharged: each CPU batches charges of less than a page."""


def _create_map_in(
    group: memcg.Cgroup, namespace: str, path: Path, cleanup: ExitStack, max_entries: int
) -> int:
    """Create a flow map whose creator was in a memcg and has exited; return a descriptor."""

    def make() -> None:
        group.enter()
        with bpf.open_flowmap(namespace, max_entries) as fd:
            bpf.pin(fd, str(path))

    child_process.run_in_child(make)
    group.wait_until_empty()
    fd = bpf.get_pinned(str(path))
    path.unlink()
    cleanup.callback(os.close, fd)
    return fd


class _Meter:
    """What a memcg and its descendants have been charged for kernel objects since a moment."""

    def __init__(self, group: memcg.Cgroup) -> None:
        self._group = group
        self._before = self._now()

    def _now(self) -> int:
        return self._group.memory_stat()["slab_unreclaimable"]

    def charged(self) -> int:
        """Return the bytes since the creation of this object."""
        return self._now() - self._before


def _offload(open_connection: OpenConnection, first_port: int) -> None:
    for number in range(_FLOWS):
        open_connection(IPPROTO_UDP, 4, server_port=first_port + number).wait_offloaded()


def _memlock(fd: int) -> int:
    return int(bpf.fdinfo(fd)["memlock"])


@pytest.fixture
def lasting_router(private_router: Router) -> Router:
    """`private_router`, whose flows do not expire while others are added."""
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    return private_router


@pytest.mark.clause("MM-10.4")
@pytest.mark.deadline(120)
def test_entry_is_charged_to_first_view_with_room_that_is_left(
    lasting_router: Router, open_private_connection: OpenConnection, bpffs: Path, cleanup: ExitStack
) -> None:
    """The creator of a view that misses a flow, or was removed, does not pay for its entry.

    Of three maps the first is full after one flow, and the second is closed half-way.
    """
    ns = lasting_router.namespace
    groups = [memcg.create(name, cleanup) for name in ("fm-full", "fm-closed", "fm-last")]
    rooms = (1, 1000, 1000)
    maps = []
    for number, (group, flows) in enumerate(zip(groups, rooms, strict=True)):
        inner = cleanup.enter_context(ExitStack())
        capacity = uapi.keys_for_flows(flows)
        maps.append((_create_map_in(group, ns, bpffs / f"{number}", inner, capacity), inner))
    last_map = maps[2][0]
    open_private_connection(IPPROTO_UDP, 4, server_port=6998).wait_offloaded()
    before = _memlock(last_map)
    open_private_connection(IPPROTO_UDP, 4, server_port=6999).wait_offloaded()
    # The hash table is not charged; it grows with more flows than these two.
    grown = _FLOWS * (_memlock(last_map) - before)
    assert grown >= _FLOWS * 2 * uapi.VALUE_SIZE > 2 * _SLACK

    for payer, first_port in ((1, 7000), (2, 7100)):
        meters = [_Meter(group) for group in groups]
        _offload(open_private_connection, first_port)

        def charged() -> list[int]:
            return [meter.charged() for meter in meters]  # noqa: B023

        wait_for(
            f"map {payer + 1} to be charged",
            lambda: charged()[payer] >= grown - _SLACK,  # noqa: B023
        )
        others = [size for number, size in enumerate(charged()) if number != payer]
        assert all(size <= _SLACK for size in others), f"charged: {charged()}"
        assert bpf.flowmap_missed_count(maps[0][0]) == bpf.flowmap_entry_count(last_map) - 1
        if payer == 1:
            maps[1][1].close()


@pytest.mark.clause("MM-10.6", "MM-10.4")
@pytest.mark.deadline(120)
def test_entry_is_charged_to_parent_of_removed_memcg(
    lasting_router: Router, open_private_connection: OpenConnection, bpffs: Path, cleanup: ExitStack
) -> None:
    """After the creator's cgroup is removed, its parent pays for the entries of later flows."""
    parent = memcg.create("fm-parent", cleanup)
    (parent.path / "cgroup.subtree_control").write_text("+memory")
    child = memcg.create("fm-parent/child", cleanup)
    capacity = uapi.keys_for_flows(1000)
    fd = _create_map_in(child, lasting_router.namespace, bpffs / "flows", cleanup, capacity)
    open_private_connection(IPPROTO_UDP, 4, server_port=6999).wait_offloaded()
    child.remove()
    meter = _Meter(parent)
    _offload(open_private_connection, 7000)
    assert (bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)) == (_FLOWS + 1, 0)
    grown = _FLOWS * 2 * uapi.VALUE_SIZE
    wait_for("the parent to be charged", lambda: meter.charged() >= grown - _SLACK)
