# SPDX-License-Identifier: GPL-2.0-only
"""The value's MTU is that of the path, which may be less than the output device's."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap
from fixtures.guest.topology import ipip, pppoe
from fixtures.guest.topology.client_router_server import Router, RouterConfig, build_router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, connect

_ETHERNET = 1500
_SMALL = 1400


def _build(cleanup: ExitStack, vlans: tuple[int, ...] = (), bridge: str | None = None) -> Router:
    return build_router(RouterConfig(vlans=vlans, bridge=bridge, netns_prefix="mtu"), cleanup)


def _with_pppoe(_: int, cleanup: ExitStack) -> tuple[Router, tuple[int, int]]:
    router = pppoe.add_session(_build(cleanup), 7, cleanup)
    return router, (_ETHERNET, _ETHERNET - pppoe.OVERHEAD)


def _with_tunnel(version: int, cleanup: ExitStack) -> tuple[Router, tuple[int, int]]:
    """The MTU is the outer route's: who adds the outer header takes off its length."""
    return ipip.add_tunnel(_build(cleanup), version), (_ETHERNET, _ETHERNET)


def _with_upper_device(router: Router, offset: int) -> tuple[Router, tuple[int, int]]:
    """Lower the MTU of the device above r0 that has the addresses."""
    upper = router.lan.ifindex + offset
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.set_mtu(upper, _SMALL)], router.namespace)
    return router, (_ETHERNET, _SMALL)


def _with_vlan(_: int, cleanup: ExitStack) -> tuple[Router, tuple[int, int]]:
    return _with_upper_device(_build(cleanup, vlans=(7,)), 100)


def _with_bridge(_: int, cleanup: ExitStack) -> tuple[Router, tuple[int, int]]:
    return _with_upper_device(_build(cleanup, bridge="plain"), 800)


def _with_device(_: int, cleanup: ExitStack) -> tuple[Router, tuple[int, int]]:
    router = _build(cleanup)
    messages = [
        rtnetlink.set_mtu(router.lan.ifindex, _SMALL),
        rtnetlink.set_mtu(router.wan.ifindex, _SMALL - 10),
    ]
    netlink.transact(netlink.NETLINK_ROUTE, messages, router.namespace)
    return router, (_SMALL - 10, _SMALL)


KINDS: dict[str, Callable[[int, ExitStack], tuple[Router, tuple[int, int]]]] = {
    "pppoe": _with_pppoe,
    "tunnel": _with_tunnel,
    "vlan": _with_vlan,
    "bridge": _with_bridge,
    "devices": _with_device,
}


@pytest.mark.clause("FM-3.16")
@pytest.mark.usefixtures("flowtable_modules")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_value_has_mtu_of_its_direction(
    make_flowmap: MakeFlowmap, cleanup: ExitStack, kind: str, version: int
) -> None:
    """Each direction has the MTU of its route, with whatever is in front of the output device."""
    router, expected = KINDS[kind](version, cleanup)
    fd = make_flowmap(router.namespace)
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        flow = connect(router, protocol, version, cleanup).wait_offloaded()
        assert tuple(bpf.lookup(fd, key).mtu for key in flow.keys) == expected, protocol
