# SPDX-License-Identifier: GPL-2.0-only
"""Views of one namespace with different capacities: each has its own flows, counts and memory."""

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

_VIEWS = 36
_LARGE = 1000


def _offload(open_connection: OpenConnection, count: int) -> list[Flow]:
    """Offload connections of both protocols and IP versions."""
    return [
        open_connection(
            IPPROTO_TCP if number % 4 == 0 else IPPROTO_UDP,
            6 if number % 2 else 4,
            server_port=7500 + number,
        ).wait_offloaded()
        for number in range(count)
    ]


def _found(fd: int, flows: list[Flow]) -> list[Flow]:
    return [flow for flow in flows if bpf.lookup_or_none(fd, flow.original) is not None]


def _counts(fd: int) -> tuple[int, int]:
    return bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)


def _memlock(fd: int) -> int:
    return int(bpf.fdinfo(fd)["memlock"])


@pytest.fixture
def lasting_router(private_router: Router) -> Router:
    """`private_router`, whose flows do not expire while many maps are created."""
    settings = {f"netfilter/nf_flowtable_{name}_timeout": 3600 for name in ("tcp", "udp")}
    netns.set_sysctls(private_router.namespace, settings)
    return private_router


@pytest.mark.clause("SN-9.2", "FM-11.1")
@pytest.mark.deadline(120)
def test_each_of_many_views_has_the_flows_that_it_had_room_for(
    lasting_router: Router, open_private_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Of many views, each shows the flows that it took, whatever other views have.

    Every third view has room for one flow, another third for two, the rest for all. Lookups,
    walks and counts of each agree.
    """
    capacities = [(1, 2, _LARGE)[number % 3] for number in range(_VIEWS)]
    maps = [
        make_flowmap(lasting_router.namespace, uapi.keys_for_flows(capacity))
        for capacity in capacities
    ]
    flows = _offload(open_private_connection, 4)
    for number, (fd, capacity) in enumerate(zip(maps, capacities, strict=True)):
        # Flows are taken in the order in which they are added.
        held = flows[:capacity]
        assert _found(fd, flows) == held, f"view {number}"
        assert _counts(fd) == (len(held), len(flows) - len(held)), f"view {number}"
        walked = sorted(map(bytes, bpf.iterate_keys(fd)))
        assert walked == sorted(bytes(key) for flow in held for key in flow.keys), f"view {number}"


@pytest.mark.clause("FM-11.1", "SN-7.4")
def test_missed_flows_of_full_view_are_counted_once_whatever_views_come_later(
    lasting_router: Router, open_private_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """A full view counts a flow that it missed once: not again when another view is published."""
    full = make_flowmap(lasting_router.namespace, uapi.keys_for_flows(2))
    flows = _offload(open_private_connection, 5)
    held = _found(full, flows)
    assert _counts(full) == (2, 3)
    for capacity in (_LARGE, 1, 3):
        later = make_flowmap(lasting_router.namespace, uapi.keys_for_flows(capacity))
        room = min(capacity, len(flows))
        assert _counts(later) == (room, len(flows) - room)
        assert _counts(full) == (2, 3)
        assert _found(full, flows) == held


@pytest.mark.clause("MM-10.3")
def test_memlock_of_full_view_grows_only_by_its_own_flows(
    lasting_router: Router, open_private_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """``memlock`` of a map has the entries of its own flows, not those that others have."""
    namespace = lasting_router.namespace
    full = make_flowmap(namespace, uapi.keys_for_flows(1))
    large = make_flowmap(namespace, uapi.keys_for_flows(_LARGE))
    first = _memlock(full)
    assert first == _memlock(large)
    # Few enough that the buckets, which both maps count, stay as many as they are.
    flows = _offload(open_private_connection, 4)
    entry = _memlock(full) - first
    assert entry > 0
    assert _memlock(large) - first == len(flows) * entry
