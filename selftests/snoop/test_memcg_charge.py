# SPDX-License-Identifier: GPL-2.0-only
"""Whom the memory of flows is charged to, and where it shows."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import memcg
from fixtures.guest.kernel.drgn_client import KernelMemory
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL

_PAGE = os.sysconf("SC_PAGE_SIZE")
_POINTER = 8  # bytes: a bucket
FLOWS = 48
_PIPES = 400
_OF_A_PIPE = 512
"""Bytes, at the least: two files, an inode and 16 buffers."""


def _memlock(fd: int) -> int:
    return int(bpf.fdinfo(fd)["memlock"])


@pytest.mark.clause("MM-10")
def test_memlock_grows_and_shrinks_with_the_flows(
    router: Router, flowmap: int, connection: Connect
) -> None:
    empty, sizes = _memlock(flowmap), []
    for number in range(4):
        connection(UDP_PROTOCOL, 4, server_port=7000 + number).offloaded()
        sizes.append(_memlock(flowmap))
    # Each flow has a value for either direction, at the least.
    for before, after in zip([empty, *sizes], sizes, strict=False):
        assert after - before >= 2 * uapi.VALUE_SIZE
    conntrack.flush(router.namespace)

    def given_back() -> bool:
        # All but what the hash table keeps, whose size is its own affair.
        return sizes[-1] - _memlock(flowmap) >= len(sizes) * 2 * uapi.VALUE_SIZE

    wait_for("the entries to go", given_back)


@pytest.mark.clause("MM-10")
def test_memlock_is_of_the_flows_and_of_the_buckets_of_the_hash_table(
    own_router: Router, own_flowmap: int, own_connection: Connect, kernel_memory: KernelMemory
) -> None:
    # None ends while the others are added.
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    identity = bpf.map_info(own_flowmap).id

    def sizes() -> tuple[int, int]:
        """Memory, and buckets."""
        buckets = kernel_memory.table_of(identity).buckets
        assert buckets
        return _memlock(own_flowmap), buckets

    empty, at_first = sizes()
    own_connection(UDP_PROTOCOL, 4, server_port=7000).offloaded()
    one, still = sizes()
    assert still == at_first
    for number in range(1, FLOWS):
        own_connection(UDP_PROTOCOL, 4, server_port=7000 + number).offloaded()

    def counted() -> bool:
        # A work item lets the hash table grow.
        grown, buckets = sizes()
        more = _POINTER * (buckets - at_first)
        return more > 0 and grown - empty == FLOWS * (one - empty) + more

    wait_for("the buckets to be more, and counted", counted)


def _made_within(group: memcg.Cgroup, namespace: str, path: Path) -> None:
    """Pin a flow map whose creator was in a cgroup, and is no more."""

    def make() -> None:
        group.enter()
        with bpf.flowmap(namespace) as fd:
            bpf.pin(fd, str(path))

    child_process.in_child(make)


@pytest.mark.clause("MM-10")
def test_entries_are_charged_to_the_cgroup_of_the_maps_creator(
    own_router: Router, own_connection: Connect, bpffs: Path, cleanup: ExitStack
) -> None:
    """Not to whoever sends the packets, who is in the cgroup of the test."""
    group = memcg.make("fm-charged", cleanup)
    _made_within(group, own_router.namespace, bpffs / "flows")
    fd = bpf.get_pinned(str(bpffs / "flows"))
    cleanup.callback(os.close, fd)
    empty = _memlock(fd)
    charged = group.memory()["slab_unreclaimable"]

    for number in range(FLOWS):
        own_connection(UDP_PROTOCOL, 4, server_port=7000 + number).offloaded()
    grown = _memlock(fd) - empty
    # Each CPU may keep back what makes less than a page.
    slack = (os.cpu_count() or 1) * _PAGE
    assert grown > 2 * slack

    def seen() -> bool:
        return group.memory()["slab_unreclaimable"] - charged >= grown - slack

    wait_for("the entries to be charged", seen)


@pytest.mark.clause("MM-10")
def test_creator_of_a_map_pays_where_it_is_for_what_it_asks_for_next(
    own_router: Router, own_connection: Connect, cleanup: ExitStack
) -> None:
    """Flows that were there before are mirrored by the map's creator itself."""
    here, elsewhere = (memcg.make(name, cleanup) for name in ("fm-here", "fm-elsewhere"))
    own_connection(UDP_PROTOCOL, 4).offloaded()

    def make_map_and_move() -> None:
        here.enter()
        with bpf.flowmap(own_router.namespace) as fd:
            assert bpf.entries(fd) == 1
            elsewhere.enter()
            before = elsewhere.memory()["slab"]
            for _ in range(_PIPES):
                os.pipe()

            def charged() -> bool:
                # Statistics come some seconds late.
                return elsewhere.memory()["slab"] - before >= _PIPES * _OF_A_PIPE

            wait_for("the pipes to be charged", charged)

    child_process.in_child(make_map_and_move)


@pytest.mark.clause("RT-3", "SN-8", "MM-10")
def test_map_does_not_keep_the_cgroup_of_its_creator(
    own_router: Router, own_connection: Connect, bpffs: Path, cleanup: ExitStack
) -> None:
    group = memcg.make("fm-brief", cleanup)
    before = memcg.dying()
    _made_within(group, own_router.namespace, bpffs / "flows")
    fd = bpf.get_pinned(str(bpffs / "flows"))
    flow = own_connection(UDP_PROTOCOL, 4).offloaded()
    assert bpf.lookup(fd, flow.original).ct_id == flow.entry.identity
    group.await_left()
    group.remove()
    assert memcg.dying() == before + 1
    (bpffs / "flows").unlink()
    os.close(fd)
    wait_for("the cgroup to be freed", lambda: memcg.dying() == before)
