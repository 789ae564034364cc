# SPDX-License-Identifier: GPL-2.0-only
"""Lookups by other program types than XDP, and compared with bpf_xdp_flow_lookup()."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, frame

# The counters of selftests/bpf/xdp_both_lookups.bpf.c
BOTH, NEITHER, ONLY_MAP, ONLY_KFUNC, FAILED = range(COUNTERS := 5)


@pytest.mark.clause("FM-4", "FM-3")
@pytest.mark.parametrize(
    "program",
    ["by_xdp", "by_tc", "by_cgroup", "by_socket"],
    ids=["xdp", "tc", "cgroup-skb", "socket-filter"],
)
def test_program_of_every_type_reads_the_value(
    router: Router, flowmap: int, connection: Connect, load: Load, program: str
) -> None:
    """XDP, tc, cgroup and socket filter programs read the same value as bpf(2)."""
    conn = connection(UDP_PROTOCOL, 4)
    flow = conn.offloaded()
    packet = frame(router.client, router.inside, conn.tuple)
    probe = Asker(load("lookup_probe", flowmap, program), program)

    for key in flow.keys:
        by_program, by_syscall = probe.ask(key, packet), bpf.lookup(flowmap, key)
        assert by_program is not None
        # The program's own lookup may have refreshed the expiry.
        by_program.expires = by_syscall.expires = 0
        assert bytes(by_program) == bytes(by_syscall)
    other = uapi.Key.from_buffer_copy(flow.original)
    other.ports.source ^= 1
    assert probe.ask(other, packet) is None


@pytest.mark.clause("FM-12", "FM-5")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_map_and_kfunc_agree_on_every_packet(
    router: Router,
    flowmap: int,
    connection: Connect,
    load: Load,
    cleanup: ExitStack,
    protocol: int,
    version: int,
) -> None:
    """For every packet, the map lookup hits exactly if bpf_xdp_flow_lookup() does."""
    program = load("xdp_both_lookups", flowmap)
    for port in (router.inside, router.outside):
        program.attach_xdp("xdp_both_lookups", port.index, router.namespace, cleanup)
    conn = connection(protocol, version)

    # Each round goes from a connection without a flow to an offloaded one, and back.
    rounds = 3
    for _ in range(rounds):
        conn.offloaded()
        conn.exchange()
        conntrack.flush(router.namespace)
    counted = [program.counter(which) for which in range(COUNTERS)]
    assert (counted[ONLY_MAP], counted[ONLY_KFUNC], counted[FAILED]) == (0, 0, 0)
    # Each round has one offloaded exchange, and packets without a flow.
    assert counted[BOTH] >= 2 * rounds
    assert counted[NEITHER] >= rounds
