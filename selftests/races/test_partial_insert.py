# SPDX-License-Identifier: GPL-2.0-only
"""A flow of which the second direction does not get into a full hash table: the first was there.

Whoever looked it up meanwhile has an entry that is taken out again.
"""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.kernel import fault_injection
from fixtures.guest.kernel.syncpoints import FAR, NEAR, hold
from fixtures.guest.pytest_plugin.fixtures import Connect, describe, require_faults
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, key_of
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near", "readers_give_way")

MOST = 40


def _fill(fd: int, talks: list[Connection]) -> None:
    """Talk until the map's hash table takes no more flows."""
    for talk in talks:
        for _ in range(3):
            talk.exchange()
        if bpf.missed(fd):
            return
    raise AssertionError(f"{len(talks)} flows, and there is still room")


@pytest.mark.clause("FM-9", "SN-7", "RT-1")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("own_router", [Plan(tables="split")], ids=describe, indirect=True)
def test_lookup_has_a_flow_whose_other_direction_does_not_get_in(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    require_faults()
    talk = own_connection(UDP_PROTOCOL, 4)
    # Of two source tables in turn, so that those have room.
    others = [
        own_connection(UDP_PROTOCOL, (4, 6)[number % 2], server_port=7001 + number)
        for number in range(MOST)
    ]
    key = key_of(talk.tuple, own_router.inside.index)
    sender = interleavings.adder(talk)
    reader = child_process.Waiting(lambda: bpf.found(own_flowmap, key) is not None, NEAR)
    # A lookup asks for the output device when it has found the entry, and then writes to it.
    with (
        hold("dev_get_by_index_rcu", task=reader.pid) as lookup,
        hold("rhashtable_insert_slow", offset=0, cpu=FAR) as insertion,
        fault_injection.without(fault_injection.LARGER_HASH_TABLE),
    ):
        _fill(own_flowmap, others)
        missed = bpf.missed(own_flowmap)
        sender.begin()
        insertion.reached(busy=True)
        reader.begin()
        lookup.reached(busy=True)
        insertion.release()
        sender.join()
        assert bpf.missed(own_flowmap) == missed + 1
        assert bpf.found(own_flowmap, key) is None
        lookup.release()
        assert reader.join() is True
    entry = talk.entry()
    assert entry is not None
    assert entry.offloaded
    assert bpf.found(own_flowmap, key) is None
