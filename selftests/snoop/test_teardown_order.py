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
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns
from fixtures.guest.runtime import kernel_state, leak_check
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_UDP, close_without_shutdown, connect

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
        router = client_router_server.build_router(RouterConfig(netns_prefix="order"), cleanup)
        flowtable.create_snoop_table("spy", "all", router.namespace)
        conns = [
            connect(router, IPPROTO_UDP, version, cleanup, server_port=7000 + version)
            for version in (4, 6)
        ]
        flows = [conn.wait_offloaded() for conn in conns]
        with netns.entered(router.namespace):
            fd = bpf.flowmap_create()
        assert all(bpf.lookup_or_none(fd, key) is not None for flow in flows for key in flow.keys)
        # An open socket would pin the hosts' netns; closing a UDP socket ends no flow.
        for conn in conns:
            close_without_shutdown(conn.client, conn.server)
        removals = _removals(router, fd)
        for part in order:
            _ignore_not_found(removals[part])


@pytest.mark.clause("SN-8.1", "FM-2.2", "RT-3.1")
@pytest.mark.parametrize("first", PARTS)
@pytest.mark.deadline(120)
def test_teardown_in_any_order_leaks_nothing(first: str, flowmap_loaded: str) -> None:
    """Removal in any order leaks no reference, and the module can be unloaded."""
    others = [part for part in PARTS if part != first]
    before = kernel_state.read_kernel_state()
    for rest in permutations(others):
        _build_and_remove((first, *rest))
    assert leak_check.find_leaks(before) == []
    modules.unload(flowmap_loaded)


@pytest.mark.clause("FM-2.3", "SN-6.8")
def test_map_after_netns_exit_is_empty_and_usable(
    private_router: Router, cleanup: ExitStack
) -> None:
    """After its netns exits, a map is empty and can still be looked up and queried."""
    conn = connect(private_router, IPPROTO_UDP, 4, cleanup)
    flow = conn.wait_offloaded()
    with netns.entered(private_router.namespace):
        fd = bpf.flowmap_create()
    cleanup.callback(os.close, fd)
    assert bpf.lookup_or_none(fd, flow.original) is not None

    netns.remove(private_router.namespace)
    wait_for("the map to be empty", lambda: not list(bpf.iterate_keys(fd)))

    assert [bpf.lookup_or_none(fd, key) for key in flow.keys] == [None, None]
    assert bpf.map_info(fd).type == bpf.flowmap_type()


@pytest.mark.clause("FM-2.2", "FM-2.3")
def test_map_does_not_pin_netns(make_netns: MakeNetns, cleanup: ExitStack) -> None:
    """An open map does not keep its netns alive."""
    observer_ns = make_netns("fm-watch")
    netns.create("fm-brief")
    cleanup.callback(netns.remove_if_exists, "fm-brief")
    # Netns exit deletes its devices, and deleting one end of a veth pair deletes the other.
    pair = rtnetlink.add_veth(
        "near", 9, "02:00:00:00:00:09", "far", 9, "02:00:00:00:00:0a", "fm-brief"
    )
    netlink.transact(netlink.NETLINK_ROUTE, [pair], observer_ns)
    with netns.entered("fm-brief"):
        fd = bpf.flowmap_create()
    cleanup.callback(os.close, fd)

    netns.remove("fm-brief")
    wait_for("the netns to exit", lambda: "near" not in rtnetlink.link_names(observer_ns))
    assert bpf.lookup_or_none(fd, uapi.Key(l3proto=2)) is None
