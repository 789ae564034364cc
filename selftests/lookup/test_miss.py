# SPDX-License-Identifier: GPL-2.0-only
"""Lookups that miss, and keys that are refused."""

import errno
import socket
from collections.abc import Callable

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

Change = Callable[[uapi.Key], None]


def _set_field(field: str, value: int) -> Change:
    """Set a field of the key."""
    return lambda key: setattr(key, field, value)


def _flip_bit(field: str, at: int) -> Change:
    """Flip a bit in one byte of a key's field."""

    def change(key: uapi.Key) -> None:
        getattr(key, field)[at] ^= 1

    return change


def _flip_port(which: str) -> Change:
    """Flip a bit in the source or destination port."""
    return lambda key: setattr(key.ports, which, getattr(key.ports, which) ^ 1)


def _add_tag(depth: int) -> Change:
    """Add a VLAN tag to the key, at encapsulation depth 0 (outer) or 1."""

    def change(key: uapi.Key) -> None:
        key.encap[depth].id = 7
        key.encap[depth].proto = uapi.ETH_P_8021Q

    return change


def _swap_addresses(key: uapi.Key) -> None:
    """Exchange source and destination address."""
    source = bytes(key.src)
    key.src[:] = bytes(key.dst)
    key.dst[:] = source


KEY_CHANGES: dict[str, Change] = {
    "source address, first byte": _flip_bit("src", 0),
    "source address, last byte": _flip_bit("src", 3),
    "source field, first byte after the IPv4 address": _flip_bit("src", 4),
    "source field, last byte": _flip_bit("src", 15),
    "destination address, last byte": _flip_bit("dst", 3),
    "destination field, last byte": _flip_bit("dst", 15),
    "source port": _flip_port("source"),
    "destination port": _flip_port("destination"),
    "ifindex of the other device": _set_field("iifindex", 22),
    "ifindex 0": _set_field("iifindex", 0),
    "other L3 protocol": _set_field("l3proto", socket.AF_INET6),
    "L3 protocol 0": _set_field("l3proto", 0),
    "other L4 protocol": _set_field("l4proto", socket.IPPROTO_SCTP),
    "one VLAN tag": _add_tag(0),
    "inner VLAN tag only": _add_tag(1),
    "conntrack zone": _set_field("zone", 4),
    "tunnel protocol": _set_field("tun_l4proto", socket.IPPROTO_IPIP),
    "tunnel source": _flip_bit("tun_src", 0),
    "tunnel destination": _flip_bit("tun_dst", 15),
    "source and destination swapped": _swap_addresses,
}


@pytest.mark.clause("FM-3.4", "FM-3.5", "FM-3.6", "FM-3.7", "FM-5.1", "V0-6")
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_key_differing_in_one_field_misses(
    flowmap: int, open_connection: OpenConnection, protocol: int
) -> None:
    """A key that differs from the flow's in any one field misses."""
    flow = open_connection(protocol, 4).wait_offloaded()
    hits = []
    for name, change in KEY_CHANGES.items():
        changed = uapi.Key.from_buffer_copy(flow.original)
        change(changed)
        assert bytes(changed) != bytes(flow.original), name
        if bpf.lookup_or_none(flowmap, changed) is not None:
            hits.append(name)
    assert hits == []
    assert bpf.lookup_or_none(flowmap, flow.original) is not None


@pytest.mark.clause("FM-5.1")
@pytest.mark.parametrize("field", ["src", "dst", "tun_src", "tun_dst"])
def test_thousand_keys_differing_in_address_miss(
    flowmap: int, open_connection: OpenConnection, field: str
) -> None:
    """A thousand keys that differ from the flow's in one address all miss.

    Some of them share the flow's hash bucket, so that only the key comparison rejects them.
    """
    flow = open_connection(IPPROTO_UDP, 6).wait_offloaded()
    hits = []
    for number in range(1, 1001):
        changed = uapi.Key.from_buffer_copy(flow.original)
        field_bytes = getattr(changed, field)
        field_bytes[14] ^= number >> 8
        field_bytes[15] ^= number & 0xFF
        if bpf.lookup_or_none(flowmap, changed) is not None:
            hits.append(number)
    assert hits == []
    assert bpf.lookup_or_none(flowmap, flow.original) is not None


@pytest.mark.clause("FM-5.2")
@pytest.mark.parametrize("index", [0, 1, 2], ids="reserved-byte-{}".format)
def test_key_with_reserved_byte_set_returns_einval(
    flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf, index: int
) -> None:
    """A key with a reserved byte set returns EINVAL from bpf(2) and misses in a program."""
    flow = open_connection(IPPROTO_TCP, 4).wait_offloaded()
    probe = LookupProbe(load_bpf("lookup_probe", flowmap, "by_xdp"), "by_xdp")
    assert probe.lookup(flow.original) is not None
    flow.original.reserved[index] = 1
    with expect_errno(errno.EINVAL):
        bpf.lookup(flowmap, flow.original)
    assert probe.lookup(flow.original) is None  # programs get NULL, no errno


@pytest.mark.clause("SN-2.5")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_lookup_in_empty_map_misses(router: Router, flowmap: int, version: int) -> None:
    """An empty map misses every lookup and has no keys."""
    source, destination = router.client.addresses[version], router.server.addresses[version]
    key = uapi.make_key(IPPROTO_TCP, source, destination, 1, 2, router.lan.ifindex)
    assert bpf.lookup_or_none(flowmap, key) is None
    assert list(bpf.iterate_keys(flowmap)) == []


@pytest.mark.clause("FM-2.1", "SN-2.4", "V0-10")
def test_lookup_in_map_of_other_netns_misses(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    make_flowmap: Callable[[str], int],
) -> None:
    """A map of another netns has no keys, and misses both keys of the flow."""
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    assert bpf.lookup_or_none(flowmap, flow.original) is not None
    for other_netns in (router.client.namespace, router.server.namespace):
        other_map = make_flowmap(other_netns)
        assert [bpf.lookup_or_none(other_map, key) for key in flow.keys] == [None, None]
        assert list(bpf.iterate_keys(other_map)) == []
