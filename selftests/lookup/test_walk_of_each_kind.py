# SPDX-License-Identifier: GPL-2.0-only
"""Walks over keys of each kind: a position follows from all fields of a key, not from some of them.

The tests do not know the order.  If a position were that of another key, a walk over a dozen flows
would leave keys out, or visit some of them again.
"""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, nftables, tc
from fixtures.guest.net.conntrack import ConntrackEntry
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap
from fixtures.guest.topology import ipip, pppoe
from fixtures.guest.topology.client_router_server import Router, RouterConfig, build_router
from fixtures.guest.traffic import act_ct_offload
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    connect,
    flow_from_conntrack,
)

_FLOWS = 12
_FIRST_PORT = 7500
_ZONE, _OTHER_ZONE = 0x0103, 0x0205

Build = Callable[[ExitStack], Router]


def _plain(cleanup: ExitStack, vlans: tuple[int, ...] = ()) -> Router:
    return build_router(RouterConfig(vlans=vlans, netns_prefix="walk"), cleanup)


def _zones(router: Router) -> Router:
    """Put half of the connections into one zone and half into another one."""
    ports = ", ".join(str(_FIRST_PORT + number) for number in range(_FLOWS) if number // 2 % 2)
    nftables.run(
        f"""
        table inet zones {{
            chain pre {{
                type filter hook prerouting priority raw;
                th dport {{ {ports} }} ct zone set {_ZONE} accept
                th sport {{ {ports} }} ct zone set {_ZONE} accept
                ct zone set {_OTHER_ZONE}
            }}
        }}
        """,
        router.namespace,
    )
    return router


# How to build the router, and the IP versions of its connections.
KINDS: dict[str, tuple[Build, tuple[int, int]]] = {
    "plain": (_plain, (4, 6)),
    "vlan": (lambda cleanup: _plain(cleanup, (7,)), (4, 6)),
    "vlans": (lambda cleanup: _plain(cleanup, (100, 7)), (4, 6)),
    "pppoe": (lambda cleanup: pppoe.add_session(_plain(cleanup), 0x1234, cleanup), (4, 6)),
    "ipip": (lambda cleanup: ipip.add_tunnel(_plain(cleanup), 4), (4, 4)),
    "ip6ip6": (lambda cleanup: ipip.add_tunnel(_plain(cleanup), 6), (6, 6)),
    "zones": (lambda cleanup: _zones(_plain(cleanup)), (4, 6)),
    "zones-vlan": (lambda cleanup: _zones(_plain(cleanup, (7,))), (4, 6)),
}


def _offload(conns: list[Connection]) -> list[ConntrackEntry]:
    """Exchange messages until all connections are offloaded, in whatever zone."""
    namespace = conns[0].router.namespace

    def offloaded() -> list[ConntrackEntry] | None:
        for conn in conns:
            conn.exchange()
        entries = conntrack.offloaded_entries(namespace)
        return entries if len(entries) == len(conns) else None

    return wait_for("all connections to be offloaded", offloaded)


def _assert_each_key_is_visited_once(fd: int, expected: list[bytes]) -> None:
    """Walk by key and by batches of several sizes; each walk has each key exactly once."""
    limit = 2 * len(expected)
    walk = [bytes(key) for key in bpf.iterate_keys(fd, limit)]
    assert sorted(walk) == sorted(expected)
    # Any key is a position, and the walk goes on behind it.
    for place, raw in enumerate(walk):
        try:
            following = bytes(bpf.next_key(fd, uapi.Key.from_buffer_copy(raw)))
        except FileNotFoundError:
            following = b""
        assert following == (walk[place + 1] if place + 1 < len(walk) else b"")
    for size in (1, 5, limit):
        seen: list[bytes] = []
        cursor, ended = None, False
        while not ended:
            pairs, cursor, ended = bpf.lookup_batch(fd, size, cursor)
            seen += [bytes(key) for key, _ in pairs]
            assert len(seen) <= len(walk), f"batches of {size} do not end"
        assert seen == walk, f"batches of {size}"


@pytest.mark.clause("FM-6.1", "FM-6.2", "FM-6.3", "FM-6.6")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("flowtable_modules")
def test_walk_over_keys_of_each_kind_visits_each_once(
    make_flowmap: MakeFlowmap, cleanup: ExitStack, kind: str
) -> None:
    """Keys with VLAN tags, a PPPoE session, a tunnel or a zone are positions as others are.

    Half of the keys, those of the other direction, have no encapsulation.
    """
    build, versions = KINDS[kind]
    router = build(cleanup)
    fd = make_flowmap(router.namespace)
    conns = [
        connect(
            router,
            IPPROTO_TCP if number % 4 == 0 else IPPROTO_UDP,
            versions[number % 2],
            cleanup,
            server_port=_FIRST_PORT + number,
        )
        for number in range(_FLOWS)
    ]
    flows = [flow_from_conntrack(router, entry) for entry in _offload(conns)]
    expected = [bytes(key) for flow in flows for key in flow.keys]
    _assert_each_key_is_visited_once(fd, expected)
    for flow in flows:
        assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]


@pytest.mark.clause("FM-6.1", "FM-6.6", "FM-6.7", "FM-5.1", "SN-10.5")
@pytest.mark.usefixtures("flowtable_modules")
def test_keys_with_equal_addresses_and_ports_are_told_apart(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """TCP flows of nft and UDP flows of act_ct with the same addresses and ports are all found.

    Their keys, in the original direction, differ in the protocol and in the interface only.
    """
    config = RouterConfig(tables="split", netns_prefix="walk")
    router = build_router(config, cleanup)
    namespace = router.namespace
    flowtable.drop_table("fw4", namespace, flowtable.IPV4)
    for device in ("r0", "r1"):
        tc.run(f"qdisc add dev {device} clsact", namespace)
        tc.run(
            f"filter add dev {device} ingress protocol ip flower ip_proto udp "
            "action ct commit zone 0",
            namespace,
        )
    fd = make_flowmap(namespace)
    keys: dict[int, list[uapi.Key]] = {IPPROTO_TCP: [], IPPROTO_UDP: []}
    for number in range(_FLOWS // 2):
        ports = {"server_port": _FIRST_PORT + number, "client_port": 30000 + number}
        by_nft = connect(router, IPPROTO_TCP, 4, cleanup, **ports).wait_offloaded()
        keys[IPPROTO_TCP] += by_nft.keys
        by_act_ct = connect(router, IPPROTO_UDP, 4, cleanup, **ports)
        keys[IPPROTO_UDP] += act_ct_offload.wait_offloaded(by_act_ct, zone=0)
    tcp, udp = keys[IPPROTO_TCP][0], keys[IPPROTO_UDP][0]
    assert (tcp.iifindex, udp.iifindex) == (router.lan.ifindex, 0)
    assert (bytes(tcp.src), bytes(tcp.ports)) == (bytes(udp.src), bytes(udp.ports))

    _assert_each_key_is_visited_once(fd, [bytes(key) for pair in keys.values() for key in pair])
    for protocol, pairs in keys.items():
        for number, key in enumerate(pairs):
            value = bpf.lookup(fd, key)
            assert value.dir == number % 2
            assert (value.xmit_type == uapi.XMIT_TC) == (protocol == IPPROTO_UDP)
    # The end of one of two leaves the other.
    for number in range(_FLOWS // 2):
        ended = keys[(IPPROTO_TCP, IPPROTO_UDP)[number % 2]][2 * number]
        left = keys[(IPPROTO_UDP, IPPROTO_TCP)[number % 2]][2 * number]
        for entry in conntrack.offloaded_entries(namespace):
            side = entry.original
            if (side.protocol, side.source_port) == (ended.l4proto, ended.ports.source):
                conntrack.delete(side, namespace)
        assert bpf.lookup_or_none(fd, ended) is None
        assert bpf.lookup(fd, left).dir == 0
