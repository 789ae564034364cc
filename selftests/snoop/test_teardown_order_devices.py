# SPDX-License-Identifier: GPL-2.0-only
"""Removal of source tables, act_ct, snoop table, map, devices and netns in several orders."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import modules
from fixtures.guest.net import flowtable, netlink, netns, rtnetlink, tc
from fixtures.guest.runtime import kernel_state, leak_check
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import act_ct_offload
from fixtures.guest.traffic.connections import IPPROTO_UDP, close_without_shutdown, connect

PARTS = ("source-table", "devices", "act-ct", "map", "snoop-table", "netns")


def orders() -> list[tuple[str, ...]]:
    """Return six orders in which each part is once directly before each other one.

    They are the rows of a row-complete Latin square.
    """
    size = len(PARTS)
    first = [0]
    for step in range(1, size):
        first.append((first[-1] + (step if step % 2 else -step)) % size)
    return [tuple(PARTS[(place + row) % size] for place in first) for row in range(size)]


def _ignore_absent(action: Callable[[], object]) -> None:
    """Run a removal; ignore that an earlier one has removed the part already."""
    try:
        action()
    except (FileNotFoundError, tc.TcError):
        return
    except netlink.NetlinkError as error:
        if error.errno != 19:  # ENODEV
            raise


def _remove_devices(router: Router) -> None:
    for port in (router.wan, router.lan):
        message = rtnetlink.delete_link(port.ifindex)
        netlink.transact(netlink.NETLINK_ROUTE, [message], router.namespace)


def _remove_act_ct(router: Router) -> None:
    for device in (router.lan.device, router.wan.device):
        tc.run(f"qdisc del dev {device} clsact", router.namespace)


def _build_and_remove(order: tuple[str, ...]) -> None:
    """Build everything, with a live flow of nft and one of act_ct, and remove it in an order."""
    with ExitStack() as cleanup:
        router = client_router_server.build_router(RouterConfig(netns_prefix="order"), cleanup)
        namespace = router.namespace
        flowtable.create_snoop_table("spy", "all", namespace, devices=["r0", "r1"])
        by_nft = connect(router, IPPROTO_UDP, 4, cleanup, server_port=7004)
        keys = list(by_nft.wait_offloaded().keys)
        tc.add_act_ct(["r0", "r1"], act_ct_offload.ZONE, namespace)
        by_tc = connect(router, IPPROTO_UDP, 6, cleanup, server_port=7006)
        keys += act_ct_offload.wait_offloaded(by_tc)
        with netns.entered(namespace):
            fd = bpf.flowmap_create()
        removals: dict[str, Callable[[], object]] = {
            "source-table": partial(flowtable.drop_table, "fw", namespace),
            "snoop-table": partial(flowtable.drop_table, "spy", namespace),
            "act-ct": partial(_remove_act_ct, router),
            "devices": partial(_remove_devices, router),
            "map": partial(os.close, fd),
            "netns": partial(netns.remove, namespace),
        }
        assert all(bpf.lookup_or_none(fd, key) is not None for key in keys)
        # An open socket would pin the hosts' netns; closing a UDP socket ends no flow.
        for conn in (by_nft, by_tc):
            close_without_shutdown(conn.client, conn.server)
        for part in order:
            _ignore_absent(removals[part])


@pytest.mark.clause("SN-8.1", "SN-8.2", "RT-3.1")
@pytest.mark.parametrize("order", orders(), ids="-".join)
@pytest.mark.deadline(60)
@pytest.mark.no_capture
def test_teardown_with_devices_and_act_ct_leaks_nothing(
    order: tuple[str, ...], flowmap_loaded: str
) -> None:
    """Whatever is removed directly before what, no reference stays, and the module unloads.

    Over all orders each of the six parts is removed directly before each other one.
    """
    # Modules that are loaded in between would be references to others.
    for name in (modules.FLOWTABLE_INET_MODULE, modules.NFT_FLOW_OFFLOAD_MODULE, "act_ct"):
        modules.modprobe(name)
    before = kernel_state.read_kernel_state()
    _build_and_remove(order)
    assert leak_check.find_leaks(before) == []
    modules.unload(flowmap_loaded)
