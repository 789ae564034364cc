# SPDX-License-Identifier: GPL-2.0-only
"""Programs of each hook look up the packets of real traffic, with each kind of encapsulation."""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.kernel import memcg
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection, router_config_id
from fixtures.guest.topology import pppoe
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow, connect

# The counters of selftests/bpf/packet_lookup.bpf.c
HIT_ORIGINAL, HIT_REPLY, MISS, UNPARSED = range(COUNTERS := 4)
# The bits of a slot in its last_values
SLOT_REPLY, SLOT_IPV6, SLOT_UDP = 1, 2, 4
_ROUNDS = 3
_KINDS = [(protocol, version) for protocol in (IPPROTO_TCP, IPPROTO_UDP) for version in (4, 6)]

Attach = Callable[[BpfObject, Router, ExitStack], None]


def _attach_xdp(loaded: BpfObject, router: Router, cleanup: ExitStack) -> None:
    for port in (router.lan, router.wan):
        loaded.attach_xdp("packets_by_xdp", port.ifindex, router.namespace, cleanup)


def _attach_tc(loaded: BpfObject, router: Router, cleanup: ExitStack) -> None:
    program = loaded.program_fd("packets_by_tc")
    with netns.entered(router.namespace):
        for port in (router.lan, router.wan):
            link = prog_syscalls.create_link(program, port.ifindex, prog_syscalls.TCX_INGRESS)
            cleanup.callback(os.close, link)


HOOKS: dict[str, Attach] = {"packets_by_xdp": _attach_xdp, "packets_by_tc": _attach_tc}
each_hook = pytest.mark.parametrize("hook", HOOKS, ids=["xdp", "tc"])


def _counts(loaded: BpfObject) -> list[int]:
    return [loaded.counter(slot) for slot in range(COUNTERS)]


def _slot(key: uapi.Key, direction: int) -> bytes:
    slot = SLOT_REPLY if direction else 0
    slot |= SLOT_IPV6 if key.l3proto == socket.AF_INET6 else 0
    slot |= SLOT_UDP if key.l4proto == IPPROTO_UDP else 0
    return struct.pack("=I", slot)


def _assert_packets_hit(
    loaded: BpfObject, flowmap: int, flow: Flow, exchange: Callable[[], None], name: str
) -> None:
    """Exchange messages; each packet must hit, and the values must be those of bpf(2)."""
    before = _counts(loaded)
    for _ in range(_ROUNDS):
        exchange()
    grown = [new - old for old, new in zip(before, _counts(loaded), strict=True)]
    assert grown[HIT_ORIGINAL] >= _ROUNDS, name
    assert grown[HIT_REPLY] >= _ROUNDS, name
    assert grown[MISS] == 0, name
    for direction, key in enumerate(flow.keys):
        raw = bpf.lookup_raw(loaded.map_fd("last_values"), _slot(key, direction), uapi.VALUE_SIZE)
        by_program, read = uapi.Value.from_buffer_copy(raw), bpf.lookup(flowmap, key)
        by_program.expires = read.expires = 0  # the program's lookup may refresh the flow
        assert bytes(by_program) == bytes(read), f"{name}, direction {direction}"


@pytest.mark.clause("FM-4.1", "FM-4.4", "FM-4.7", "FM-4.8")
@each_hook
@pytest.mark.parametrize(
    "router",
    [
        RouterConfig(),
        RouterConfig(nat="snat+dnat"),
        RouterConfig(vlans=(7,)),
        RouterConfig(vlans=(100, 7)),
    ],
    ids=router_config_id,
    indirect=True,
)
def test_packets_of_real_traffic_hit(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
    hook: str,
) -> None:
    """XDP and tc programs find the flow of each packet of both directions, with its VLAN tags."""
    loaded = load_bpf("packet_lookup", flowmap, hook)
    # Attach before the offload: attaching XDP makes the device's routes, and so its flows, stale.
    HOOKS[hook](loaded, router, cleanup)
    for protocol, version in _KINDS:
        name = f"protocol {protocol}, IPv{version}"
        conn = open_connection(protocol, version, server_port=7000 + version)
        flow = conn.wait_offloaded()
        _assert_packets_hit(loaded, flowmap, flow, conn.exchange, name)


@pytest.mark.clause("FM-4.5", "FM-4.7", "FM-4.8")
@each_hook
def test_packets_of_pppoe_session_hit(
    private_router: Router,
    private_flowmap: int,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
    hook: str,
) -> None:
    """XDP and tc programs find the flow of each packet in a PPPoE session, and of the replies."""
    loaded = load_bpf("packet_lookup", private_flowmap, hook)
    HOOKS[hook](loaded, private_router, cleanup)
    router = pppoe.add_session(private_router, 0x1234, cleanup)
    for protocol, version in _KINDS:
        name = f"protocol {protocol}, IPv{version}"
        conn = connect(router, protocol, version, cleanup, server_port=7000 + version)
        flow = conn.wait_offloaded()
        assert [layer.proto for layer in flow.original.encap] == [uapi.ETH_P_PPP_SES, 0]
        _assert_packets_hit(loaded, private_flowmap, flow, conn.exchange, name)


@pytest.mark.clause("FM-2.1", "FM-4.8")
@pytest.mark.parametrize(
    "router", [RouterConfig(), RouterConfig(nat="snat+dnat")], ids=router_config_id, indirect=True
)
def test_packets_sent_by_sockets_of_cgroup_hit(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
) -> None:
    """A cgroup program finds, in the router's map, the flow of each packet that the hosts send.

    The program runs in the hosts' namespaces; the map belongs to the router's.
    """
    loaded = load_bpf("packet_lookup", flowmap, "packets_by_cgroup")
    for host, port in ((router.client, router.lan), (router.server, router.wan)):
        slot, index = struct.pack("=I", host.ifindex), struct.pack("=I", port.ifindex)
        bpf.update_raw(loaded.map_fd("router_ifindex"), slot, index)
    cgroup = os.open(memcg.mount_root(cleanup), os.O_RDONLY | os.O_DIRECTORY)
    cleanup.callback(os.close, cgroup)
    link = prog_syscalls.create_link(
        loaded.program_fd("packets_by_cgroup"), cgroup, prog_syscalls.CGROUP_INET_EGRESS
    )
    cleanup.callback(os.close, link)
    for protocol, version in _KINDS:
        name = f"protocol {protocol}, IPv{version}"
        conn = open_connection(protocol, version, server_port=7000 + version)
        flow = conn.wait_offloaded()
        _assert_packets_hit(loaded, flowmap, flow, conn.exchange, name)
