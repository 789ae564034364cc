# SPDX-License-Identifier: GPL-2.0-only
"""Everything that a flow hangs on, taken away in every order."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import permutations

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import flowtable, netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Namespaces
from fixtures.guest.runtime import leak_check
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, close_quietly, connect

PARTS = ("source table", "snoop table", "map", "namespace")


def _ignoring_absence(action: Callable[[], object]) -> None:
    """What went with its namespace cannot be taken away any more."""
    try:
        action()
    except FileNotFoundError:
        return


def _removals(router: Router, fd: int) -> dict[str, Callable[[], object]]:
    inside = router.namespace
    return {
        "source table": partial(flowtable.drop_table, "fw", inside),
        "snoop table": partial(flowtable.drop_table, "spy", inside),
        "map": partial(os.close, fd),
        "namespace": partial(netns.remove, inside),
    }


def _take_apart(order: tuple[str, ...]) -> None:
    """Build everything, with two live flows, and remove it in the order given."""
    with ExitStack() as cleanup:
        router = client_router_server.build(Plan(name="order"), cleanup)
        flowtable.create_snoop("spy", "all", router.namespace)
        talks = [
            connect(router, UDP_PROTOCOL, version, cleanup, server_port=7000 + version)
            for version in (4, 6)
        ]
        flows = [talk.offloaded() for talk in talks]
        with netns.entered(router.namespace):
            fd = bpf.flowmap_create()
        assert all(bpf.found(fd, key) is not None for flow in flows for key in flow.keys)
        # A socket would keep the hosts' namespaces; closing a UDP socket ends no flow.
        for talk in talks:
            close_quietly(talk.client, talk.server)
        removals = _removals(router, fd)
        for part in order:
            _ignoring_absence(removals[part])


@pytest.mark.clause("SN-8", "FM-2", "RT-3")
@pytest.mark.parametrize("first", PARTS)
@pytest.mark.deadline(120)
def test_any_order_of_removal_leaves_nothing(first: str, flowmap_module: str) -> None:
    others = [part for part in PARTS if part != first]
    before = leak_check.take()
    for rest in permutations(others):
        _take_apart((first, *rest))
    assert leak_check.compare(before) == []
    modules.unload(flowmap_module)


@pytest.mark.clause("FM-2", "SN-8")
def test_map_outlives_its_namespace(own_router: Router, cleanup: ExitStack) -> None:
    talk = connect(own_router, UDP_PROTOCOL, 4, cleanup)
    flow = talk.offloaded()
    with netns.entered(own_router.namespace):
        fd = bpf.flowmap_create()
    cleanup.callback(os.close, fd)
    assert bpf.found(fd, flow.original) is not None

    netns.remove(own_router.namespace)
    wait_for("the map to be empty", lambda: not list(bpf.keys(fd)))

    assert [bpf.found(fd, key) for key in flow.keys] == [None, None]
    assert bpf.map_info(fd).type == bpf.flowmap_type()


@pytest.mark.clause("FM-2")
def test_map_does_not_keep_its_namespace(namespace: Namespaces, cleanup: ExitStack) -> None:
    watch = namespace("fm-watch")
    netns.create("fm-brief")
    cleanup.callback(netns.remove_if_there, "fm-brief")
    # Dismantling a namespace deletes its devices, and with one end of a veth the other.
    pair = rtnetlink.veth("near", 9, "02:00:00:00:00:09", "far", 9, "02:00:00:00:00:0a", "fm-brief")
    netlink.transact(netlink.NETLINK_ROUTE, [pair], watch)
    with netns.entered("fm-brief"):
        fd = bpf.flowmap_create()
    cleanup.callback(os.close, fd)

    netns.remove("fm-brief")
    wait_for("the namespace to be gone", lambda: "near" not in rtnetlink.names(watch))
    assert bpf.found(fd, uapi.Key(l3proto=2)) is None
