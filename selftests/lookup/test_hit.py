# SPDX-License-Identifier: GPL-2.0-only
"""What the flow map finds: both directions of every kind of flow, and what it says of them."""

import os
import struct
import time
from contextlib import ExitStack
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Connect, Load, describe
from fixtures.guest.topology import pppoe
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Flow, connect, frame

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PLANS = [Plan(), Plan(nat="masquerade"), Plan(nat="snat+dnat")]
plans = pytest.mark.parametrize("router", PLANS, ids=describe, indirect=True)

# The counters of selftests/bpf/xdp_flow_lookup.bpf.c
HIT_ORIGINAL, HIT_REPLY, MISS, UNPARSED, ALIASED = range(COUNTERS := 5)


@pytest.mark.clause("FM-4", "SN-2", "SN-4", "V0-6", "V0-7")
@plans
@versions
@protocols
def test_both_directions_are_found_by_the_system_call(
    flowmap: int, connection: Connect, protocol: int, version: int
) -> None:
    flow = connection(protocol, version).offloaded()
    assert bpf.lookup(flowmap, flow.original).dir == 0
    assert bpf.lookup(flowmap, flow.reply).dir == 1


@pytest.mark.clause("FM-4", "FM-3")
@pytest.mark.parametrize(
    "router", [Plan(vlans=(7,)), Plan(vlans=(100, 7))], ids=describe, indirect=True
)
@versions
def test_vlan_tags_are_part_of_key_and_value(
    router: Router, flowmap: int, connection: Connect, version: int
) -> None:
    flow = connection(UDP_PROTOCOL, version).offloaded()
    tags = list(router.layers)
    inwards, outwards = (bpf.lookup(flowmap, key) for key in flow.keys)
    assert (inwards.dir, outwards.dir) == (0, 1)
    # To the server without a tag, back to the client with all of them.
    assert [layer.id for layer in inwards.encap] == [0] * uapi.ENCAP_MAX
    assert [(layer.id, layer.proto) for layer in outwards.encap][: len(tags)] == tags

    for layer in range(len(tags)):
        other = uapi.Key.from_buffer_copy(flow.original)
        other.encap[layer].id += 1
        assert bpf.found(flowmap, other) is None
    untagged = uapi.Key.from_buffer_copy(flow.original)
    untagged.encap[:] = [uapi.Encap() for _ in range(uapi.ENCAP_MAX)]
    assert bpf.found(flowmap, untagged) is None


@pytest.mark.clause("FM-4", "FM-3")
@versions
@protocols
def test_pppoe_session_is_part_of_key_and_value(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    router = pppoe.over(own_router, 0x1234, cleanup)
    flow = connect(router, protocol, version, cleanup).offloaded()
    inwards, outwards = (bpf.lookup(own_flowmap, key) for key in flow.keys)
    assert (inwards.dir, outwards.dir) == (0, 1)
    assert [layer.id for layer in inwards.encap] == [0] * uapi.ENCAP_MAX
    assert [(layer.id, layer.proto) for layer in outwards.encap] == [*router.layers, (0, 0)]
    # Below the session there is Ethernet, whose header the value has.
    assert (outwards.xmit_type, outwards.oifindex) == (uapi.XMIT_DIRECT, router.inside.index)
    assert uapi.mac(outwards.h_source) == router.inside.mac
    assert uapi.mac(outwards.h_dest) == router.client.mac
    assert outwards.mtu == 1500 - pppoe.OVERHEAD

    for session in (0, 0x1235):
        other = uapi.Key.from_buffer_copy(flow.original)
        other.encap[0].id = session
        assert bpf.found(own_flowmap, other) is None


@pytest.mark.clause("FM-4", "V0-3", "V0-7")
@pytest.mark.parametrize(
    "router", [Plan(), Plan(vlans=(7,)), Plan(vlans=(100, 7))], ids=describe, indirect=True
)
@versions
@protocols
def test_both_directions_are_found_by_an_xdp_program(
    router: Router,
    flowmap: int,
    connection: Connect,
    cleanup: ExitStack,
    load: Load,
    protocol: int,
    version: int,
) -> None:
    program = load("xdp_flow_lookup", flowmap)
    # Before there is a flow: attaching makes the device's routes stale, and flows with them.
    for port in (router.inside, router.outside):
        program.attach_xdp("xdp_flow_lookup", port.index, router.namespace, cleanup)
    talk = connection(protocol, version)
    flow = talk.offloaded()
    before = [program.counter(which) for which in range(COUNTERS)]

    for _ in range(3):
        talk.exchange()

    after = [program.counter(which) for which in range(COUNTERS)]
    grown = [new - old for old, new in zip(before, after, strict=True)]
    assert grown[HIT_ORIGINAL] >= 3
    assert grown[HIT_REPLY] >= 3
    assert (grown[MISS], after[ALIASED]) == (0, 0)
    for direction, key in enumerate(flow.keys):
        raw = bpf.lookup_raw(
            program.map_fd("last_values"), struct.pack("=I", direction), uapi.VALUE_SIZE
        )
        seen, read = uapi.Value.from_buffer_copy(raw), bpf.lookup(flowmap, key)
        # The program's own lookup refreshed the flow, so the expiry may have moved.
        seen.expires = read.expires = 0
        assert bytes(seen) == bytes(read)


@pytest.mark.clause("FM-5", "FM-4")
def test_xdp_program_misses_what_is_not_offloaded(
    router: Router, flowmap: int, connection: Connect, cleanup: ExitStack, load: Load
) -> None:
    program = load("xdp_flow_lookup", flowmap)
    program.attach_xdp("xdp_flow_lookup", router.inside.index, router.namespace, cleanup)
    # The first packet of a connection comes before there is a flow.
    connection(UDP_PROTOCOL, 4).exchange()
    assert program.counter(MISS) >= 1
    assert program.counter(HIT_ORIGINAL) == 0


@pytest.mark.clause("FM-5", "FM-4")
@pytest.mark.parametrize(
    "part", [{"flags": "MF"}, {"frag": 1}, {"flags": "MF", "frag": 1}], ids=["first", "last", "any"]
)
def test_xdp_program_takes_no_fragment_for_a_flow(
    router: Router, flowmap: int, connection: Connect, load: Load, part: dict[str, Any]
) -> None:
    program = load("xdp_flow_lookup", flowmap)
    talk = connection(UDP_PROTOCOL, 4)
    talk.offloaded()
    packet = Ether(frame(router.client, router.inside, talk.tuple))
    run = program.program_fd("xdp_flow_lookup")
    prog_syscalls.run_xdp(run, bytes(packet), router.inside.index, router.namespace)
    assert program.counter(HIT_ORIGINAL) == 1

    # What would be the ports is where it was.
    for field, content in part.items():
        setattr(packet[IP], field, content)
    prog_syscalls.run_xdp(run, bytes(packet), router.inside.index, router.namespace)
    assert (program.counter(HIT_ORIGINAL), program.counter(UNPARSED)) == (1, 1)


def _addresses(value: uapi.Value, family: int) -> tuple[str, int, str, int]:
    return (
        uapi.text(value.src, family),
        value.ports.source,
        uapi.text(value.dst, family),
        value.ports.destination,
    )


@pytest.mark.clause("FM-3", "SN-4")
@plans
@versions
@protocols
def test_value_tells_how_the_packet_leaves(
    router: Router, flowmap: int, connection: Connect, protocol: int, version: int
) -> None:
    flow = connection(protocol, version).offloaded()
    nat = router.plan.nat or ""
    flags = uapi.F_SNAT * ("masquerade" in nat or "snat" in nat) + uapi.F_DNAT * ("dnat" in nat)

    for key, leaves_as, by in (
        (flow.original, flow.entry.reply.reversed(), router.outside),
        (flow.reply, flow.entry.original.reversed(), router.inside),
    ):
        value = bpf.lookup(flowmap, key)
        assert _addresses(value, leaves_as.family) == (
            leaves_as.source,
            leaves_as.source_port,
            leaves_as.destination,
            leaves_as.destination_port,
        )
        assert value.flags == flags
        assert value.oifindex == by.index
        assert value.xmit_type == uapi.XMIT_NEIGH
        assert value.mtu == 1500
        assert (value.ct_mark, value.ct_zone) == (flow.entry.mark, flow.entry.zone)
        assert value.reserved == value.tun_l4proto == 0


@pytest.mark.clause("FM-3")
@versions
def test_value_holds_the_mac_addresses(
    router: Router, flowmap: int, connection: Connect, version: int
) -> None:
    flow = connection(UDP_PROTOCOL, version).offloaded()
    for key, by, station in (
        (flow.original, router.outside, router.server),
        (flow.reply, router.inside, router.client),
    ):
        value = bpf.lookup(flowmap, key)
        assert (uapi.mac(value.h_source), uapi.mac(value.h_dest)) == (by.mac, station.mac)


@pytest.mark.clause("V0-11")
def test_lookups_print_nothing(
    router: Router, flowmap: int, connection: Connect, cleanup: ExitStack, load: Load
) -> None:
    program = load("xdp_flow_lookup", flowmap)
    talk = connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()
    packet = frame(router.client, router.inside, talk.tuple)
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    cleanup.callback(os.close, log)
    os.lseek(log, 0, os.SEEK_END)

    run = program.program_fd("xdp_flow_lookup")
    prog_syscalls.run_xdp(run, packet, router.inside.index, router.namespace, repeat=1000)
    for key in flow.keys:
        bpf.lookup(flowmap, key)
    list(bpf.keys(flowmap))
    with pytest.raises(BlockingIOError):
        os.read(log, 8192)


@pytest.mark.clause("FM-3")
@versions
def test_mac_addresses_follow_the_neighbour_table(
    own_router: Router, own_flowmap: int, own_connection: Connect, version: int
) -> None:
    flow = own_connection(UDP_PROTOCOL, version).offloaded()
    by, host = own_router.outside, own_router.server.addresses[version]

    def seen() -> tuple[str, str]:
        value = bpf.lookup(own_flowmap, flow.original)
        return uapi.mac(value.h_source), uapi.mac(value.h_dest)

    moved = "02:00:00:00:00:99"
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.neighbour(by.index, host, moved)], by.namespace
    )
    assert seen() == (by.mac, moved)

    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.forget(by.index, host)], by.namespace)
    assert seen() == (unknown := "00:00:00:00:00:00", unknown)


@pytest.mark.clause("FM-3")
def test_value_says_when_the_flow_expires(flowmap: int, connection: Connect) -> None:
    flow = connection(UDP_PROTOCOL, 4).offloaded()
    value = bpf.lookup(flowmap, flow.original)
    left = value.expires - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    # nf_flowtable_udp_timeout is 30 s; the kernel rounds to ticks.
    assert 0 < left <= 31 * 10**9


@pytest.mark.clause("FM-3", "FM-12")
def test_value_names_the_conntrack_entry(flowmap: int, connection: Connect) -> None:
    flows: list[Flow] = [
        connection(UDP_PROTOCOL, 4, server_port=port).offloaded() for port in (7001, 7002, 7003)
    ]
    for flow in flows:
        named = {bpf.lookup(flowmap, key).ct_id for key in flow.keys}
        assert named == {flow.entry.identity}
