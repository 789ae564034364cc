# SPDX-License-Identifier: GPL-2.0-only
"""Lookups by other program types than XDP, and compared with bpf_xdp_flow_lookup()."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, build_frame

# The counters of selftests/bpf/xdp_both_lookups.bpf.c
BOTH, NEITHER, ONLY_MAP, ONLY_KFUNC, FAILED, OTHER_TUPLE, OTHER_VALUE = range(COUNTERS := 7)


@pytest.mark.clause("FM-4.7", "FM-4.8", "FM-5.1")
@pytest.mark.parametrize(
    "program",
    ["by_xdp", "by_tc", "by_cgroup", "by_socket"],
    ids=["xdp", "tc", "cgroup-skb", "socket-filter"],
)
def test_lookup_by_each_prog_type_reads_value(
    router: Router, flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf, program: str
) -> None:
    """XDP, tc, cgroup and socket filter programs read the same value as bpf(2)."""
    conn = open_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    packet = build_frame(router.client, router.lan, conn.tuple)
    probe = LookupProbe(load_bpf("lookup_probe", flowmap, program), program)

    for key in flow.keys:
        by_program, by_syscall = probe.lookup(key, packet), bpf.lookup(flowmap, key)
        assert by_program is not None
        # The program's own lookup may have refreshed the expiry.
        by_program.expires = by_syscall.expires = 0
        assert bytes(by_program) == bytes(by_syscall)
    other = uapi.Key.from_buffer_copy(flow.original)
    other.ports.source ^= 1
    assert probe.lookup(other, packet) is None


@pytest.mark.clause("FM-12.2")
@pytest.mark.parametrize(
    "router",
    [RouterConfig(), RouterConfig(nat="snat+dnat")],
    ids=router_config_id,
    indirect=True,
)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_map_and_kfunc_lookups_agree_on_every_packet(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
    protocol: int,
    version: int,
) -> None:
    """For every packet, the map lookup hits exactly if bpf_xdp_flow_lookup() does.

    Then both find the same tuple, and the value has the direction, MTU and translation that the
    source table has.
    """
    program = load_bpf("xdp_both_lookups", flowmap)
    for port in (router.lan, router.wan):
        program.attach_xdp("xdp_both_lookups", port.ifindex, router.namespace, cleanup)
    conn = open_connection(protocol, version)

    # Each round goes from a connection without a flow to an offloaded one, and back.
    rounds = 3
    for _ in range(rounds):
        conn.wait_offloaded()
        conn.exchange()
        conntrack.flush(router.namespace)
    counted = [program.counter(which) for which in range(COUNTERS)]
    assert (counted[ONLY_MAP], counted[ONLY_KFUNC], counted[FAILED]) == (0, 0, 0)
    assert (counted[OTHER_TUPLE], counted[OTHER_VALUE]) == (0, 0)
    # Each round has one offloaded exchange, and packets without a flow.
    assert counted[BOTH] >= 2 * rounds
    assert counted[NEITHER] >= rounds
