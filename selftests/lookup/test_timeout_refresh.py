# SPDX-License-Identifier: GPL-2.0-only
"""Flow timeouts: a program's lookup refreshes them, a lookup by bpf(2) does not."""

import time

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import deadline_scale, wait_for
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, build_frame

XDP_PASS = 2
_SECOND = 10**9
# Seconds. The kernel refreshes a timeout only if that moves it by more than a second.
_REFRESH_GAP = 1.5
_WITHIN_GAP = 0.4


@pytest.mark.clause("FM-10.1", "FM-10.2", "FM-10.4", "FM-3.17")
def test_prog_lookup_refreshes_timeout_syscall_does_not(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
) -> None:
    """An XDP lookup refreshes the expiry; lookup, iteration and batch by bpf(2) do not.

    The flows of both protocols and IP versions share the wait.
    """
    program = load_bpf("xdp_flow_lookup", flowmap)
    conns = [
        open_connection(protocol, version, server_port=7000 + protocol + version)
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
        for version in (4, 6)
    ]
    flows = [conn.wait_offloaded() for conn in conns]
    packets = [build_frame(router.client, router.lan, conn.tuple) for conn in conns]

    def xdp_lookup(packet: bytes) -> int:
        run = program.program_fd("xdp_flow_lookup")
        return prog_syscalls.run_xdp(run, packet, router.lan.ifindex, router.namespace)

    def expiries() -> list[int]:
        return [bpf.lookup(flowmap, flow.original).expires for flow in flows]

    assert [xdp_lookup(packet) for packet in packets] == [XDP_PASS] * len(packets)
    before = expiries()

    # From here on no packet refreshes the flows.
    time.sleep(_REFRESH_GAP)
    for flow in flows:
        for key in flow.keys:
            bpf.lookup(flowmap, key)
    list(bpf.iterate_keys(flowmap))
    bpf.lookup_batch(flowmap, 16)
    assert expiries() == before

    # One after the other: the lookup of one flow leaves the others.
    for number, (conn, packet) in enumerate(zip(conns, packets, strict=True)):
        xdp_lookup(packet)
        after = expiries()
        assert after[number] > before[number] + _SECOND, conn.tuple
        assert after[number + 1 :] == before[number + 1 :], conn.tuple


@pytest.mark.clause("FM-10.4")
def test_second_prog_lookup_within_a_second_keeps_expiry(
    flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf
) -> None:
    """A second program lookup within a second does not write the timeout again.

    The timeout is in a cache line that all CPUs share, so writes are expensive.
    """
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    probe = LookupProbe(load_bpf("lookup_probe", flowmap, "by_xdp"), "by_xdp")

    def lookup_expiry() -> int:
        value = probe.lookup(flow.original)
        assert value is not None
        return int(value.expires)

    def two_lookups() -> tuple[int, int] | None:
        # The first lookup would move the expiry by more than a second, so it refreshes it.
        time.sleep(_REFRESH_GAP)
        started = time.monotonic()
        first = lookup_expiry()
        time.sleep(_WITHIN_GAP)
        second = lookup_expiry()
        # On a slow machine the second lookup would refresh it, too: try again.
        return (first, second) if time.monotonic() - started < 2 * _WITHIN_GAP else None

    first, second = wait_for("two lookups within a second", two_lookups)
    assert second == first


@pytest.mark.clause("FM-10.1", "FM-10.2", "SN-6.3")
@pytest.mark.deadline(60)
def test_flow_used_only_by_prog_outlives_timeout(
    router: Router, flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf
) -> None:
    """XDP lookups alone keep a flow beyond its timeout; without them it expires."""
    seconds = max(4, round(deadline_scale()))
    netns.set_sysctls(router.namespace, {"netfilter/nf_flowtable_udp_timeout": seconds})
    program = load_bpf("xdp_flow_lookup", flowmap)
    conn = open_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    packet = build_frame(router.client, router.lan, conn.tuple)

    end = time.monotonic() + 2 * seconds
    while time.monotonic() < end:
        prog_syscalls.run_xdp(
            program.program_fd("xdp_flow_lookup"), packet, router.lan.ifindex, router.namespace
        )
        time.sleep(seconds / 8)
    assert bpf.lookup(flowmap, flow.reply).ct_id == flow.entry.ct_id

    def expired() -> bool:
        # Constant lookups by bpf(2) must not keep the flow alive.
        return all(bpf.lookup_or_none(flowmap, key) is None for key in flow.keys)

    wait_for("the flow to expire without program lookups", expired, seconds=4.0 * seconds)
    assert [bytes(key) for key in bpf.iterate_keys(flowmap)] == []
