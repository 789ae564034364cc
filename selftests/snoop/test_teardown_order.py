# SPDX-License-Identifier: GPL-2.0-only
"""Removal of source table, snoop table, map and netns in every order."""

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
from fixtures.guest.pytest_plugin.plugin_api import Namespaces
from fixtures.guest.runtime import leak_check
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, close_quietly, connect

PARTS = ("source-table", "snoop-table", "map", "netns")


def _ignore_not_found(action: Callable[[], object]) -> None:
    """Run a removal; ignore that the netns' exit removed the part already."""
    try:
        action()
    except FileNotFoundError:
        return


def _removals(router: Router, fd: int) -> dict[str, Callable[[], object]]:
    ns = router.namespace
    return {
        "source-table": partial(flowtable.drop_table, "fw", ns),
        "snoop-table": partial(flowtable.drop_table, "spy", ns),
        "map": partial(os.close, fd),
        "netns": partial(netns.remove, ns),
    }


def _build_and_remove(order: tuple[str, ...]) -> None:
    """Build everything with two live flows, and remove it in the given order."""
    with ExitStack() as cleanup:
        router = client_router_server.build(Plan(name="order"), cleanup)
        flowtable.create_snoop("spy", "all", router.namespace)
        conns = [
            connect(router, UDP_PROTOCOL, version, cleanup, server_port=7000 + version)
            for version in (4, 6)
        ]
        flows = [conn.offloaded() for conn in conns]
        with netns.entered(router.namespace):
            fd = bpf.flowmap_create()
        assert all(bpf.found(fd, key) is not None for flow in flows for key in flow.keys)
        # An open socket would pin the hosts' netns; closing a UDP socket ends no flow.
        for conn in conns:
            close_quietly(conn.client, conn.server)
        removals = _removals(router, fd)
        for part in order:
            _ignore_not_found(removals[part])


@pytest.mark.clause("SN-8", "FM-2", "RT-3")
@pytest.mark.parametrize("first", PARTS)
@pytest.mark.deadline(120)
def test_any_order_of_removal_leaves_nothing(first: str, flowmap_module: str) -> None:
    """Removal in any order leaks no reference, and the module can be unloaded."""
    others = [part for part in PARTS if part != first]
    before = leak_check.take()
    for rest in permutations(others):
        _build_and_remove((first, *rest))
    assert leak_check.compare(before) == []
    modules.unload(flowmap_module)


@pytest.mark.clause("FM-2", "SN-8")
def test_map_outlives_its_namespace(own_router: Router, cleanup: ExitStack) -> None:
    """After its netns exits, a map is empty and can still be looked up and queried."""
    conn = connect(own_router, UDP_PROTOCOL, 4, cleanup)
    flow = conn.offloaded()
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
    """An open map does not keep its netns alive."""
    observer_ns = namespace("fm-watch")
    netns.create("fm-brief")
    cleanup.callback(netns.remove_if_there, "fm-brief")
    # Netns exit deletes its devices, and deleting one end of a veth pair deletes the other.
    pair = rtnetlink.veth("near", 9, "02:00:00:00:00:09", "far", 9, "02:00:00:00:00:0a", "fm-brief")
    netlink.transact(netlink.NETLINK_ROUTE, [pair], observer_ns)
    with netns.entered("fm-brief"):
        fd = bpf.flowmap_create()
    cleanup.callback(os.close, fd)

    netns.remove("fm-brief")
    wait_for("the netns to exit", lambda: "near" not in rtnetlink.names(observer_ns))
    assert bpf.found(fd, uapi.Key(l3proto=2)) is None
