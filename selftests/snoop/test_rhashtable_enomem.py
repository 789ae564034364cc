# SPDX-License-Identifier: GPL-2.0-only
"""A hash table that is full and gets no memory to grow: its own flows only are without a copy."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import fault_injection
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.fixtures import Connect, describe, require_faults
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, flow_of

FLOWS = 40
"""More than a hash table takes that cannot grow (two tuples each), less than two tables take."""


def _found(flowmap: int, router: Router, talk: Connection) -> bool:
    """Whether the map has both directions of a connection; it must not have one only."""
    entry = talk.entry()
    assert entry is not None
    there, back = (bpf.found(flowmap, key) is not None for key in flow_of(router, entry).keys)
    assert there == back, "half a flow"
    return there


def _talks(connect: Connect, versions: tuple[int, ...]) -> list[Connection]:
    """Connections with a few messages each, while no hash table can grow."""
    talks = [
        connect(UDP_PROTOCOL, versions[number % len(versions)], server_port=7000 + number)
        for number in range(FLOWS)
    ]
    with fault_injection.without(fault_injection.LARGER_HASH_TABLE):
        for talk in talks:
            for _ in range(3):
                talk.exchange()
    return talks


@pytest.fixture(autouse=True)
def _faults() -> None:
    require_faults()


@pytest.mark.clause("SN-7", "RT-3")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("own_router", [Plan(tables="split")], ids=describe, indirect=True)
def test_snoop_table_that_cannot_grow_misses_flows(
    own_router: Router, own_connection: Connect, own_flowmap: int
) -> None:
    flowtable.create_snoop("spy", "all", own_router.namespace)
    talks = _talks(own_connection, (4, 6))
    held, missed = flowtable.snooped("spy", "all", own_router.namespace)
    assert held > 0
    assert missed > 0
    assert held + missed == FLOWS
    assert all(talk.offloaded() for talk in talks)
    # A map's is a table of its own, as full as the other.
    assert sum(_found(own_flowmap, own_router, talk) for talk in talks) == held

    own_connection(UDP_PROTOCOL, 4, server_port=6999).offloaded()
    assert flowtable.snooped("spy", "all", own_router.namespace) == (held + 1, missed)


@pytest.mark.clause("SN-2", "SN-8", "RT-3")
@pytest.mark.deadline(120)
def test_flows_of_a_table_that_cannot_grow_are_in_no_copy(
    own_router: Router, own_connection: Connect, own_flowmap: int
) -> None:
    flowtable.create_snoop("spy", "all", own_router.namespace)
    talks = _talks(own_connection, (4,))
    held, missed = flowtable.snooped("spy", "all", own_router.namespace)
    assert 0 < held < FLOWS
    assert missed == 0
    offloaded = [(entry := talk.entry()) is not None and entry.offloaded for talk in talks]
    assert sum(offloaded) == held
    assert [_found(own_flowmap, own_router, talk) for talk in talks] == offloaded

    for talk in talks:
        flow = talk.offloaded()
        assert [bpf.lookup(own_flowmap, key).dir for key in flow.keys] == [0, 1]
    assert flowtable.snooped("spy", "all", own_router.namespace) == (FLOWS, 0)
