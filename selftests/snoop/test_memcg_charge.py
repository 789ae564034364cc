# SPDX-License-Identifier: GPL-2.0-only
"""Memory of mirrored flows: the memcg it is charged to, and the map's memlock that shows it."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import memcg
from fixtures.guest.kernel.drgn_client import DrgnClient
from fixtures.guest.net import conntrack, netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BUCKET_BYTES = 8  # one pointer
FLOW_COUNT = 48
_PIPE_COUNT = 400
_MIN_PIPE_BYTES = 512
"""Lower bound of a pipe's memory in bytes: two files, an inode and 16 buffers."""


def _memlock(fd: int) -> int:
    """Return the memory in bytes that the map's fdinfo reports."""
    return int(bpf.fdinfo(fd)["memlock"])


@pytest.mark.clause("MM-10.3")
def test_memlock_follows_flow_count(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """memlock grows with each mirrored flow and shrinks after a conntrack flush."""
    empty, sizes = _memlock(flowmap), []
    for number in range(4):
        open_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()
        sizes.append(_memlock(flowmap))
    # Each flow has at least one value per direction.
    for before, after in zip([empty, *sizes], sizes, strict=False):
        assert after - before >= 2 * uapi.VALUE_SIZE
    conntrack.flush(router.namespace)

    def values_freed() -> bool:
        # The hash table may keep its size; only the values must be freed.
        return sizes[-1] - _memlock(flowmap) >= len(sizes) * 2 * uapi.VALUE_SIZE

    wait_for("the entries to be freed", values_freed)


@pytest.mark.clause("MM-10.3")
def test_memlock_counts_entries_and_hash_buckets(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    guest_memory: DrgnClient,
) -> None:
    """memlock of each map is the sum of its entries' sizes and of the index's hash buckets."""
    # No flow may expire while the others are added.
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    map_id = bpf.map_info(private_flowmap).id
    other = make_flowmap(private_router.namespace)

    def sizes() -> tuple[int, int]:
        """Return memlock and the number of buckets."""
        buckets = guest_memory.snoop_table_of(map_id).bucket_count
        assert buckets
        return _memlock(private_flowmap), buckets

    empty, initial_buckets = sizes()
    open_private_connection(IPPROTO_UDP, 4, server_port=7000).wait_offloaded()
    one, buckets_after_one = sizes()
    assert buckets_after_one == initial_buckets
    for number in range(1, FLOW_COUNT):
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()

    def includes_growth() -> bool:
        # A work item grows the hash table.
        grown, buckets = sizes()
        bucket_growth = _BUCKET_BYTES * (buckets - initial_buckets)
        return bucket_growth > 0 and grown - empty == FLOW_COUNT * (one - empty) + bucket_growth

    wait_for("the hash table to grow and memlock to include it", includes_growth)
    # The other map has the same flows, whichever of the two is charged for them.
    assert _memlock(other) == _memlock(private_flowmap)


def _open_map_created_in(
    group: memcg.Cgroup, namespace: str, path: Path, cleanup: ExitStack
) -> int:
    """Pin a flow map whose creator was in a memcg and has exited, and return a descriptor."""

    def make() -> None:
        group.enter()
        with bpf.open_flowmap(namespace) as fd:
            bpf.pin(fd, str(path))

    child_process.run_in_child(make)
    fd = bpf.get_pinned(str(path))
    cleanup.callback(os.close, fd)
    return fd


def _charge_slack() -> int:
    """Return how many bytes may be uncharged: each CPU may batch charges of less than a page."""
    return (os.cpu_count() or 1) * _PAGE


@pytest.mark.clause("MM-10.4")
def test_entries_are_charged_to_map_creator_memcg(
    private_router: Router, open_private_connection: OpenConnection, bpffs: Path, cleanup: ExitStack
) -> None:
    """Entries are charged to the memcg of the creator of the netns' first view.

    The task that sends the packets is in the memcg of the test, which is not charged.
    """
    group = memcg.create("fm-charged", cleanup)
    fd = _open_map_created_in(group, private_router.namespace, bpffs / "flows", cleanup)
    empty = _memlock(fd)
    charged = group.memory_stat()["slab_unreclaimable"]

    for number in range(FLOW_COUNT):
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()
    grown = _memlock(fd) - empty
    slack = _charge_slack()
    assert grown > 2 * slack

    def entries_charged() -> bool:
        return group.memory_stat()["slab_unreclaimable"] - charged >= grown - slack

    wait_for("the entries to be charged", entries_charged)


@pytest.mark.clause("MM-10.4")
def test_second_view_of_flow_is_not_charged(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    bpffs: Path,
    cleanup: ExitStack,
) -> None:
    """A later view's creator is not charged for flows that the netns' first view has."""
    group = memcg.create("fm-second", cleanup)
    fd = _open_map_created_in(group, private_router.namespace, bpffs / "flows", cleanup)
    empty = _memlock(fd)
    charged = group.memory_stat()["slab_unreclaimable"]
    for number in range(FLOW_COUNT):
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number).wait_offloaded()
    assert bpf.flowmap_entry_count(fd) == bpf.flowmap_entry_count(private_flowmap) == FLOW_COUNT
    slack = _charge_slack()
    assert _memlock(fd) - empty > 2 * slack
    assert group.memory_stat()["slab_unreclaimable"] - charged <= slack


@pytest.mark.clause("MM-10.4")
def test_map_creator_after_moving_memcg_is_charged_in_new_memcg(
    private_router: Router, open_private_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """After a map has got existing flows its creator is charged in its current memcg."""
    first_memcg, second_memcg = (
        memcg.create(name, cleanup) for name in ("fm-here", "fm-elsewhere")
    )
    open_private_connection(IPPROTO_UDP, 4).wait_offloaded()

    def make_map_and_move() -> None:
        first_memcg.enter()
        with bpf.open_flowmap(private_router.namespace) as fd:
            assert bpf.flowmap_entry_count(fd) == 1
            second_memcg.enter()
            before = second_memcg.memory_stat()["slab"]
            for _ in range(_PIPE_COUNT):
                os.pipe()

            def charged() -> bool:
                # memory.stat is updated with a delay of some seconds.
                return second_memcg.memory_stat()["slab"] - before >= _PIPE_COUNT * _MIN_PIPE_BYTES

            wait_for("the pipes to be charged", charged)

    child_process.run_in_child(make_map_and_move)


@pytest.mark.clause("MM-10.6", "RT-3.1")
def test_map_does_not_pin_creator_memcg(
    private_router: Router, open_private_connection: OpenConnection, bpffs: Path, cleanup: ExitStack
) -> None:
    """The creator's memcg is freed while the map exists; the map goes on getting flows."""
    group = memcg.create("fm-brief", cleanup)
    dying_before = memcg.dying_cgroups()
    fd = _open_map_created_in(group, private_router.namespace, bpffs / "flows", cleanup)
    flow = open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    assert bpf.lookup(fd, flow.original).ct_id == flow.entry.ct_id
    group.wait_until_empty()
    group.remove()
    wait_for("the cgroup to be freed", lambda: memcg.dying_cgroups() == dying_before)
    later = open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    for found in (flow, later):
        assert bpf.lookup(fd, found.original).ct_id == found.entry.ct_id
    (bpffs / "flows").unlink()
