# SPDX-License-Identifier: GPL-2.0-only
"""At most 64 views in a network namespace: the limit, and memory after many rounds of them."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import errno_of, expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, flowtable, netns
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, OpenConnection
from fixtures.guest.runtime.hypothesis_support import iterations_scale
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow

VIEW_LIMIT = 64
"""Views (flow maps and snoop tables) that a netns may have."""
ROUNDS = 16 * iterations_scale()
"""Rounds in which all views of a netns are created and freed."""
_MIN_MAP_BYTES = 256
"""Lower bound of the memory in bytes that one leaked map would take."""

_MEMINFO = Path("/proc/meminfo")
_SYS_SLAB = Path("/sys/kernel/slab")


def _unreclaimable_slab() -> int:
    """Return the bytes of unreclaimable slab memory (SUnreclaim)."""
    lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    return int(lines["SUnreclaim"].split()[0]) * 1024


def _unreclaimable_slab_after_shrink() -> int:
    """Return the same after the slab caches were shrunk.

    KASAN's quarantine holds freed objects until their cache is shrunk (kasan_cache_shrink(),
    mm/kasan/common.c).
    """
    for cache in _SYS_SLAB.glob("kmalloc-*"):
        (cache / "shrink").write_text("1\n")
    return _unreclaimable_slab()


def _map_ids() -> set[int]:
    return set(bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID))


def _create_all_views(namespace: str) -> list[int]:
    """Create as many flow maps as the netns may have.

    A view's place is free only after a work item has removed the view, so creation is repeated
    while it fails with ENOSPC.
    """
    fds: list[int] = []

    def created() -> bool:
        try:
            fds.append(bpf.flowmap_create())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        return True

    with netns.entered(namespace):
        for number in range(VIEW_LIMIT):
            wait_for(f"map {number + 1} of {VIEW_LIMIT} to be created", created)
    return fds


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _require_full(namespace: str) -> None:
    """Require that the netns has no place for another view, of either kind."""
    with netns.entered(namespace):
        assert errno_of(bpf.flowmap_create) == errno.ENOSPC
    with expect_errno(errno.ENOSPC):
        flowtable.create_snoop_table("spy", "all", namespace)
    assert "spy" not in {table.table for table in flowtable.list_flowtables(namespace)}


def _directions(fd: int, flow: Flow) -> list[int]:
    return [int(bpf.lookup(fd, key).dir) for key in flow.keys]


@pytest.mark.clause("SN-13.2", "SN-13.3", "SN-13.4", "SN-13.7", "SN-9.2", "SN-6.4")
@pytest.mark.usefixtures("expedited_grace_periods")
@pytest.mark.deadline(120)
def test_view_beyond_limit_is_enospc(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_netns: MakeNetns,
    flowmap_loaded: str,
    cleanup: ExitStack,
) -> None:
    """64 maps have every flow; map or snoop table 65 is ENOSPC until another view is removed."""
    ns, other_ns = private_router.namespace, make_netns("fm-else")
    # The flows must not expire while the maps are created.
    netns.set_sysctls(ns, {"netfilter/nf_flowtable_udp_timeout": 3600})
    early = open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    fds = _create_all_views(ns)
    cleanup.callback(_close_all, fds)
    assert modules.refcount(flowmap_loaded) == VIEW_LIMIT
    late = open_private_connection(IPPROTO_UDP, 6, server_port=7002).wait_offloaded()
    for fd in fds:
        assert [_directions(fd, flow) for flow in (early, late)] == [[0, 1], [0, 1]]
    _require_full(ns)
    assert modules.refcount(flowmap_loaded) == VIEW_LIMIT
    # Other namespaces have their own 64.
    with bpf.open_flowmap(other_ns):
        pass

    os.close(fds.pop(VIEW_LIMIT // 2))

    wait_for(
        "a snoop table to take the map's place",
        lambda: flowtable.create_snoop_table_if_room("spy", "all", ns),
    )
    wait_for(
        "the snoop table to have both flows",
        lambda: flowtable.snoop_counters("spy", "all", ns) == (2, 0),
    )
    with netns.entered(ns):
        assert errno_of(bpf.flowmap_create) == errno.ENOSPC

    # One deletion removes the flow from every view.
    conntrack.delete(early.entry.original, ns)
    for fd in fds:
        assert [bpf.lookup_or_none(fd, key) for key in early.keys] == [None, None]
        assert _directions(fd, late) == [0, 1]


@pytest.mark.soak
@pytest.mark.clause("MM-4.8", "SN-13.7", "RT-3.1")
@pytest.mark.usefixtures("own_kernel", "expedited_grace_periods")
@pytest.mark.deadline(300)
def test_all_views_created_and_freed_repeatedly_leak_nothing(
    private_router: Router, open_private_connection: OpenConnection, flowmap_loaded: str
) -> None:
    """Rounds of 64 maps that are created and freed give places, memory and references back."""
    ns = private_router.namespace
    netns.set_sysctls(ns, {"netfilter/nf_flowtable_udp_timeout": 3600})
    flow = open_private_connection(IPPROTO_UDP, 4).wait_offloaded()

    def run_round() -> None:
        fds = _create_all_views(ns)
        try:
            for fd in fds:
                assert _directions(fd, flow) == [0, 1]
        finally:
            _close_all(fds)

    # The first round leaves caches behind.
    run_round()
    modules.wait_until_unreferenced(flowmap_loaded)
    slab_before, ids_before = _unreclaimable_slab_after_shrink(), _map_ids()
    for _ in range(ROUNDS):
        run_round()
    modules.wait_until_unreferenced(flowmap_loaded)
    assert _map_ids() == ids_before
    wait_for(
        "the slab memory to be freed",
        lambda: (
            _unreclaimable_slab_after_shrink() - slab_before < ROUNDS * VIEW_LIMIT * _MIN_MAP_BYTES
        ),
        30,
        interval=0.2,
    )
    modules.unload(flowmap_loaded)
