# SPDX-License-Identifier: GPL-2.0-only
"""A view changes no conntrack state and no timeout, and does not change when a flow is added."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netns, nftables
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

_ROUNDS = 8
_TOLERANCE = 4
"""Seconds by which timeouts of two connections may differ that were treated alike."""

_SECONDS = 1000
"""A timeout longer than that of TCP with unacknowledged data, so that the two can be told apart."""

_VERSIONS = (4, 6)

each_protocol = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])


@dataclass(frozen=True)
class Observed:
    """What conntrack says of a connection at one step of its life."""

    step: str
    status: int
    timeout: int | None


@contextmanager
def _views(namespace: str) -> Iterator[int]:
    """Create a snoop table with devices and two maps, for a block; yield one of the maps."""
    with ExitStack() as stack:
        flowtable.create_snoop_table("spy", "all", namespace, devices=["r0", "r1"])
        stack.callback(flowtable.drop_table, "spy", namespace)
        with netns.entered(namespace):
            for _ in range(2):
                fd = bpf.flowmap_create()
                stack.callback(os.close, fd)
        yield fd


def _life(open_connection: OpenConnection, protocol: int, fd: int | None) -> list[Observed]:
    """Lead connections through their life; return what conntrack says after each step."""
    conns = [
        open_connection(protocol, version, server_port=7000 + version) for version in _VERSIONS
    ]
    namespace = conns[0].router.namespace
    seen = []

    def observe(step: str) -> None:
        for conn in conns:
            entry = conn.conntrack_entry()
            assert entry is not None, step
            seen.append(Observed(step, entry.status, entry.timeout))
        if fd is not None:
            list(bpf.iterate_keys(fd))
            bpf.lookup_batch(fd, 16)

    for conn in conns:
        flow = conn.wait_offloaded()
        if fd is not None:
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    observe("offloaded")
    for conn in conns:
        for _ in range(_ROUNDS):
            conn.exchange()
    observe("after packets")
    nftables.run("delete chain inet fw forward; delete flowtable inet fw ft", namespace)
    observe("after the deletion of its flowtable")
    for conn in conns:
        conn.exchange()
    observe("without flowtable, after packets")
    if protocol == IPPROTO_TCP:
        for conn in conns:
            conn.client_fin()
            assert conn.server.recv(1) == b""
        observe("half-closed")
        for conn in conns:
            conn.server.close()
            assert conn.client.recv(1) == b""
        observe("closed")
    return seen


@pytest.mark.clause("SN-5.2")
@each_protocol
def test_conntrack_state_and_timeouts_are_as_without_views(
    router: Router,
    open_connection: OpenConnection,
    private_router: Router,
    open_private_connection: OpenConnection,
    protocol: int,
) -> None:
    """At each step of a connection's life, status and timeout are those without a view.

    Two routers forward the same connections; only one has views, and they are read in between.
    """
    for namespace in (router.namespace, private_router.namespace):
        # Different from the default, so that a timeout that is set again is noticed.
        netns.set_sysctls(namespace, {"netfilter/nf_conntrack_udp_timeout_stream": 77})
    expected = _life(open_connection, protocol, None)
    with _views(private_router.namespace) as fd:
        seen = _life(open_private_connection, protocol, fd)
    for with_views, without in zip(seen, expected, strict=True):
        assert (with_views.step, with_views.status) == (without.step, without.status)
        assert (with_views.timeout is None) == (without.timeout is None), without.step
        difference = abs((with_views.timeout or 0) - (without.timeout or 0))
        assert difference <= _TOLERANCE, f"{without.step}: {with_views} instead of {without}"


@pytest.mark.clause("SN-5.2")
@each_protocol
def test_creation_and_removal_of_views_leave_conntrack_entries(
    private_router: Router, open_private_connection: OpenConnection, protocol: int
) -> None:
    """Creating and removing views changes neither the offloaded connection nor the other one."""
    namespace = private_router.namespace
    # In both directions: either one's packets would offload the connection.
    for port in ("dport", "sport"):
        nftables.run(f"insert rule inet fw forward th {port} 7009 accept", namespace)
    _set_timeouts(namespace, _SECONDS)
    offloaded = open_private_connection(protocol, 4, server_port=7001)
    offloaded.wait_offloaded()
    other = open_private_connection(protocol, 4, server_port=7009)
    for _ in range(_ROUNDS):
        other.exchange()

    def timeout() -> int:
        entry = other.conntrack_entry()
        assert entry is not None
        assert entry.timeout is not None
        return entry.timeout

    def statuses() -> list[int]:
        entries = [conn.conntrack_entry() for conn in (offloaded, other)]
        return [entry.status for entry in entries if entry is not None]

    # TCP acknowledges the last message later, and until then the timeout is a shorter one.
    wait_for("the last packet to set the timeout", lambda: timeout() > _SECONDS // 2)
    # From now on, a timeout that is set again grows.
    _set_timeouts(namespace, 2 * _SECONDS)
    before, timeouts = statuses(), [timeout()]
    assert [bool(status & conntrack.IPS_OFFLOAD) for status in before] == [True, False]
    for _ in range(3):
        with _views(namespace):
            assert statuses() == before
            timeouts.append(timeout())
        assert statuses() == before
        timeouts.append(timeout())
    assert timeouts == sorted(timeouts, reverse=True)
    assert timeouts[-1] > _SECONDS // 2


def _set_timeouts(namespace: str, seconds: int) -> None:
    names = ("tcp_timeout_established", "udp_timeout", "udp_timeout_stream")
    netns.set_sysctls(namespace, {f"netfilter/nf_conntrack_{name}": seconds for name in names})


@pytest.mark.clause("SN-7.2", "SN-7.3", "FM-11.2")
@pytest.mark.parametrize("views", [0, 3], ids=["without-view", "with-full-views"])
def test_flow_is_offloaded_at_same_packet_when_views_are_full(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    views: int,
) -> None:
    """A full view does not delay the addition: the flow is offloaded at the same packet.

    That is the first one after the connection is established, of each protocol and version.
    """
    full = [make_flowmap(private_router.namespace, uapi.keys_for_flows(1)) for _ in range(views)]
    open_private_connection(IPPROTO_UDP, 4, server_port=7099).wait_offloaded()
    missed = 0
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        for version in _VERSIONS:
            conn = open_private_connection(protocol, version, server_port=7000 + version)
            conn.exchange()
            entry = conn.conntrack_entry()
            assert entry is not None
            assert entry.offloaded, (protocol, version)
            missed += 1
            counts = [(bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)) for fd in full]
            assert counts == [(1, missed)] * views
