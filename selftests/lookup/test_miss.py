# SPDX-License-Identifier: GPL-2.0-only
"""What the flow map does not find, and what it refuses to be asked."""

import errno
import socket
from collections.abc import Callable

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.pytest_plugin.fixtures import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL

Change = Callable[[uapi.Key], None]


def _set(field: str, value: int) -> Change:
    return lambda key: setattr(key, field, value)


def _byte(field: str, place: int) -> Change:
    def change(key: uapi.Key) -> None:
        getattr(key, field)[place] ^= 1

    return change


def _port(which: str) -> Change:
    return lambda key: setattr(key.ports, which, getattr(key.ports, which) ^ 1)


def _tag(which: int) -> Change:
    def change(key: uapi.Key) -> None:
        key.encap[which].id = 7
        key.encap[which].proto = uapi.ETH_P_8021Q

    return change


def _swap(key: uapi.Key) -> None:
    source = bytes(key.src)
    key.src[:] = bytes(key.dst)
    key.dst[:] = source


NEAR_MISSES: dict[str, Change] = {
    "first byte of the source": _byte("src", 0),
    "last byte of the source": _byte("src", 3),
    "byte after an IPv4 source": _byte("src", 4),
    "last byte of the source field": _byte("src", 15),
    "last byte of the destination": _byte("dst", 3),
    "last byte of the destination field": _byte("dst", 15),
    "source port": _port("source"),
    "destination port": _port("destination"),
    "device of the other side": _set("iifindex", 22),
    "no device": _set("iifindex", 0),
    "other network protocol": _set("l3proto", socket.AF_INET6),
    "no network protocol": _set("l3proto", 0),
    "other transport protocol": _set("l4proto", socket.IPPROTO_SCTP),
    "a tag": _tag(0),
    "an inner tag": _tag(1),
    "a tunnel": _set("tun_l4proto", socket.IPPROTO_IPIP),
    "a tunnel's source": _byte("tun_src", 0),
    "a tunnel's destination": _byte("tun_dst", 15),
    "addresses swapped": _swap,
}


@pytest.mark.clause("FM-5", "V0-6")
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_key_that_differs_in_one_field_is_not_found(
    flowmap: int, connection: Connect, protocol: int
) -> None:
    flow = connection(protocol, 4).offloaded()
    found = []
    for name, change in NEAR_MISSES.items():
        near = uapi.Key.from_buffer_copy(flow.original)
        change(near)
        assert bytes(near) != bytes(flow.original), name
        if bpf.found(flowmap, near) is not None:
            found.append(name)
    assert found == []
    assert bpf.found(flowmap, flow.original) is not None


@pytest.mark.clause("FM-5")
@pytest.mark.parametrize("field", ["src", "dst", "tun_src", "tun_dst"])
def test_none_of_a_thousand_keys_that_differ_in_an_address_is_found(
    flowmap: int, connection: Connect, field: str
) -> None:
    """Some of them are in the flow's own hash bucket, where only the comparison is left."""
    flow = connection(UDP_PROTOCOL, 6).offloaded()
    found = []
    for number in range(1, 1001):
        near = uapi.Key.from_buffer_copy(flow.original)
        address = getattr(near, field)
        address[14] ^= number >> 8
        address[15] ^= number & 0xFF
        if bpf.found(flowmap, near) is not None:
            found.append(number)
    assert found == []
    assert bpf.found(flowmap, flow.original) is not None


@pytest.mark.clause("FM-5")
def test_reserved_byte_is_einval(flowmap: int, connection: Connect, load: Load) -> None:
    flow = connection(TCP_PROTOCOL, 4).offloaded()
    asker = Asker(load("lookup_probe", flowmap, "by_xdp"), "by_xdp")
    assert asker.ask(flow.original) is not None
    flow.original.reserved = 1
    with refused(errno.EINVAL):
        bpf.lookup(flowmap, flow.original)
    assert asker.ask(flow.original) is None  # a program is told no more than that


@pytest.mark.clause("FM-5", "FM-4")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_nothing_is_found_in_an_empty_map(router: Router, flowmap: int, version: int) -> None:
    source, destination = router.client.addresses[version], router.server.addresses[version]
    key = uapi.key(TCP_PROTOCOL, source, destination, 1, 2, router.inside.index)
    assert bpf.found(flowmap, key) is None
    assert list(bpf.keys(flowmap)) == []


@pytest.mark.clause("FM-2", "SN-2", "V0-10")
def test_map_of_another_namespace_finds_nothing(
    router: Router, flowmap: int, connection: Connect, make_flowmap: Callable[[str], int]
) -> None:
    flow = connection(UDP_PROTOCOL, 4).offloaded()
    assert bpf.found(flowmap, flow.original) is not None
    for elsewhere in (router.client.namespace, router.server.namespace):
        other = make_flowmap(elsewhere)
        assert [bpf.found(other, key) for key in flow.keys] == [None, None]
        assert list(bpf.keys(other)) == []
