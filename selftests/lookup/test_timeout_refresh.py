# SPDX-License-Identifier: GPL-2.0-only
"""Who keeps a flow alive: a program that forwards its packets does, a reader does not."""

import time

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.map_readers import Asker
from fixtures.guest.core.polling import scale, wait_for
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.fixtures import Connect, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, frame

XDP_PASS = 2
_SECOND = 10**9
# The kernel moves a timeout only when it gains more than a second by that.
_LONG_ENOUGH = 1.5
_SOON = 0.4
_TICKS = _SECOND // 10


@pytest.mark.clause("FM-10")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_programs_lookup_moves_the_expiry_and_reading_does_not(
    router: Router,
    flowmap: int,
    connection: Connect,
    load: Load,
    protocol: int,
    version: int,
) -> None:
    program = load("xdp_flow_lookup", flowmap)
    talk = connection(protocol, version)
    flow = talk.offloaded()
    packet = frame(router.client, router.inside, talk.tuple)

    def look() -> int:
        run = program.program_fd("xdp_flow_lookup")
        return prog_syscalls.run_xdp(run, packet, router.inside.index, router.namespace)

    assert look() == XDP_PASS
    before = bpf.lookup(flowmap, flow.original).expires

    # No packet crosses the router from here on.
    time.sleep(_LONG_ENOUGH)
    for key in flow.keys:
        bpf.lookup(flowmap, key)
    list(bpf.keys(flowmap))
    bpf.lookup_batch(flowmap, 16)
    unmoved = bpf.lookup(flowmap, flow.original).expires
    assert abs(unmoved - before) < _TICKS

    look()
    assert bpf.lookup(flowmap, flow.original).expires > before + _SECOND


@pytest.mark.clause("FM-10")
def test_second_lookup_within_a_second_moves_nothing(
    flowmap: int, connection: Connect, load: Load
) -> None:
    """Each write of the timeout is one to a cache line that all CPUs share."""
    flow = connection(UDP_PROTOCOL, 4).offloaded()
    asker = Asker(load("lookup_probe", flowmap, "by_xdp"), "by_xdp")

    def expires() -> int:
        value = asker.ask(flow.original)
        assert value is not None
        return int(value.expires)

    def both() -> tuple[int, int] | None:
        # The first lookup gains more than a second, and so moves it.
        time.sleep(_LONG_ENOUGH)
        start = time.monotonic()
        first = expires()
        time.sleep(_SOON)
        second = expires()
        # On a machine so slow the second would gain a second, too.
        return (first, second) if time.monotonic() - start < 2 * _SOON else None

    first, second = wait_for("two lookups within a second", both)
    assert abs(second - first) < _TICKS


@pytest.mark.clause("FM-10", "SN-6")
@pytest.mark.deadline(60)
def test_flow_that_only_a_program_uses_outlives_its_timeout(
    router: Router, flowmap: int, connection: Connect, load: Load
) -> None:
    seconds = max(4, round(scale()))
    netns.set_sysctls(router.namespace, {"netfilter/nf_flowtable_udp_timeout": seconds})
    program = load("xdp_flow_lookup", flowmap)
    talk = connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()
    packet = frame(router.client, router.inside, talk.tuple)

    end = time.monotonic() + 2 * seconds
    while time.monotonic() < end:
        prog_syscalls.run_xdp(
            program.program_fd("xdp_flow_lookup"), packet, router.inside.index, router.namespace
        )
        time.sleep(seconds / 8)
    assert bpf.lookup(flowmap, flow.reply).ct_id == flow.entry.identity

    def gone() -> bool:
        # Looking all the time, from user space, must not keep it.
        return all(bpf.found(flowmap, key) is None for key in flow.keys)

    wait_for("the flow to expire once no program asks for it", gone, seconds=4.0 * seconds)
    assert [bytes(key) for key in bpf.keys(flowmap)] == []
