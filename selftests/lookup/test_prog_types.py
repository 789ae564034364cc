# SPDX-License-Identifier: GPL-2.0-only
"""Lookups by programs of other types than XDP, and beside the kernel's own kfunc."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.fixtures import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, frame

# The counters of selftests/bpf/xdp_both_lookups.bpf.c
BOTH, NEITHER, ONLY_MAP, ONLY_KFUNC, FAILED = range(COUNTERS := 5)


@pytest.mark.clause("FM-4", "FM-3")
@pytest.mark.parametrize("program", ["by_xdp", "by_tc", "by_cgroup", "by_socket"])
def test_program_of_every_type_reads_the_value(
    router: Router, flowmap: int, connection: Connect, load: Load, program: str
) -> None:
    talk = connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()
    packet = frame(router.client, router.inside, talk.tuple)
    asker = Asker(load("lookup_probe", flowmap, program), program)

    for key in flow.keys:
        seen, told = asker.ask(key, packet), bpf.lookup(flowmap, key)
        assert seen is not None
        # The program's own lookup refreshed the flow, so the expiry may have moved.
        seen.expires = told.expires = 0
        assert bytes(seen) == bytes(told)
    other = uapi.Key.from_buffer_copy(flow.original)
    other.ports.source ^= 1
    assert asker.ask(other, packet) is None


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
    program = load("xdp_both_lookups", flowmap)
    for port in (router.inside, router.outside):
        program.attach_xdp("xdp_both_lookups", port.index, router.namespace, cleanup)
    talk = connection(protocol, version)

    # From the first packet of a connection to one that is served, and back again.
    rounds = 3
    for _ in range(rounds):
        talk.offloaded()
        talk.exchange()
        conntrack.flush(router.namespace)
    counted = [program.counter(which) for which in range(COUNTERS)]
    assert (counted[ONLY_MAP], counted[ONLY_KFUNC], counted[FAILED]) == (0, 0, 0)
    # Each round has an exchange that the flow table serves, and packets that it does not.
    assert counted[BOTH] >= 2 * rounds
    assert counted[NEITHER] >= rounds
