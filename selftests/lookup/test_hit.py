# SPDX-License-Identifier: GPL-2.0-only
"""Lookups that hit: both directions of every kind of flow, and the values returned."""

import os
import struct
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.net import netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection, router_config_id
from fixtures.guest.topology import pppoe
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow, build_frame, connect

protocols = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [RouterConfig(), RouterConfig(nat="masquerade"), RouterConfig(nat="snat+dnat")]
router_configs = pytest.mark.parametrize(
    "router", ROUTER_CONFIGS, ids=router_config_id, indirect=True
)

# The counters of selftests/bpf/xdp_flow_lookup.bpf.c
HIT_ORIGINAL, HIT_REPLY, MISS, UNPARSED, ALIASED = range(COUNTERS := 5)


@pytest.mark.clause(
    "FM-3.3",
    "FM-3.4",
    "FM-3.6",
    "FM-3.8",
    "FM-4.1",
    "FM-4.2",
    "FM-4.3",
    "FM-4.6",
    "SN-2.1",
    "SN-4.1",
    "V0-6",
    "V0-7",
)
@router_configs
@versions
@protocols
def test_syscall_lookup_of_both_directions_hits(
    flowmap: int, open_connection: OpenConnection, protocol: int, version: int
) -> None:
    """Lookups of both directions from user space hit, with directions 0 and 1."""
    flow = open_connection(protocol, version).wait_offloaded()
    assert bpf.lookup(flowmap, flow.original).dir == 0
    assert bpf.lookup(flowmap, flow.reply).dir == 1


@pytest.mark.clause("FM-3.7", "FM-4.1", "FM-4.4", "FM-5.1")
@pytest.mark.parametrize(
    "router",
    [RouterConfig(vlans=(7,)), RouterConfig(vlans=(100, 7))],
    ids=router_config_id,
    indirect=True,
)
@versions
def test_vlan_tags_are_part_of_key_and_value(
    router: Router, flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """Keys and values hold the VLAN tags; a key with another tag or none misses."""
    flow = open_connection(IPPROTO_UDP, version).wait_offloaded()
    tags = list(router.encap)
    to_server, to_client = (bpf.lookup(flowmap, key) for key in flow.keys)
    assert (to_server.dir, to_client.dir) == (0, 1)
    # Packets leave untagged to the server, and with all tags to the client.
    assert [layer.id for layer in to_server.encap] == [0] * uapi.ENCAP_MAX
    assert [(layer.id, layer.proto) for layer in to_client.encap][: len(tags)] == tags

    for layer in range(len(tags)):
        other = uapi.Key.from_buffer_copy(flow.original)
        other.encap[layer].id += 1
        assert bpf.lookup_or_none(flowmap, other) is None
    untagged = uapi.Key.from_buffer_copy(flow.original)
    untagged.encap[:] = [uapi.Encap() for _ in range(uapi.ENCAP_MAX)]
    assert bpf.lookup_or_none(flowmap, untagged) is None


@pytest.mark.clause("FM-3.7", "FM-3.13", "FM-3.16", "FM-4.1", "FM-4.5", "FM-5.1")
@versions
@protocols
def test_pppoe_session_is_part_of_key_and_value(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    """Keys and values hold the PPPoE session; a key with another session or none misses."""
    router = pppoe.add_session(private_router, 0x1234, cleanup)
    flow = connect(router, protocol, version, cleanup).wait_offloaded()
    to_server, to_client = (bpf.lookup(private_flowmap, key) for key in flow.keys)
    assert (to_server.dir, to_client.dir) == (0, 1)
    assert [layer.id for layer in to_server.encap] == [0] * uapi.ENCAP_MAX
    assert [(layer.id, layer.proto) for layer in to_client.encap] == [*router.encap, (0, 0)]
    # The value also holds the Ethernet header that carries the session.
    assert (to_client.xmit_type, to_client.oifindex) == (uapi.XMIT_DIRECT, router.lan.ifindex)
    assert uapi.format_mac(to_client.h_source) == router.lan.mac
    assert uapi.format_mac(to_client.h_dest) == router.client.mac
    assert to_client.mtu == 1500 - pppoe.OVERHEAD

    for session in (0, 0x1235):
        other = uapi.Key.from_buffer_copy(flow.original)
        other.encap[0].id = session
        assert bpf.lookup_or_none(private_flowmap, other) is None


@pytest.mark.clause("FM-4.1", "FM-4.2", "FM-4.4", "FM-4.7", "V0-3", "V0-7")
@pytest.mark.parametrize(
    "router",
    [RouterConfig(), RouterConfig(vlans=(7,)), RouterConfig(vlans=(100, 7))],
    ids=router_config_id,
    indirect=True,
)
@versions
@protocols
def test_xdp_lookup_of_both_directions_hits(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
    protocol: int,
    version: int,
) -> None:
    """XDP lookups of packets of both directions hit and return the same values as bpf(2)."""
    program = load_bpf("xdp_flow_lookup", flowmap)
    # Attach before the offload: attaching makes the device's routes, and so its flows, stale.
    for port in (router.lan, router.wan):
        program.attach_xdp("xdp_flow_lookup", port.ifindex, router.namespace, cleanup)
    conn = open_connection(protocol, version)
    flow = conn.wait_offloaded()
    before = [program.counter(which) for which in range(COUNTERS)]

    for _ in range(3):
        conn.exchange()

    after = [program.counter(which) for which in range(COUNTERS)]
    deltas = [new - old for old, new in zip(before, after, strict=True)]
    assert deltas[HIT_ORIGINAL] >= 3
    assert deltas[HIT_REPLY] >= 3
    assert (deltas[MISS], after[ALIASED]) == (0, 0)
    for direction, key in enumerate(flow.keys):
        raw = bpf.lookup_raw(
            program.map_fd("last_values"), struct.pack("=I", direction), uapi.VALUE_SIZE
        )
        by_program, read = uapi.Value.from_buffer_copy(raw), bpf.lookup(flowmap, key)
        # The program's own lookup may have refreshed the expiry.
        by_program.expires = read.expires = 0
        assert bytes(by_program) == bytes(read)


@pytest.mark.clause("SN-2.5")
def test_xdp_lookup_before_offload_misses(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
) -> None:
    """The XDP lookup of a packet that precedes the offload misses."""
    program = load_bpf("xdp_flow_lookup", flowmap)
    program.attach_xdp("xdp_flow_lookup", router.lan.ifindex, router.namespace, cleanup)
    # The connection's first packet precedes its flow.
    open_connection(IPPROTO_UDP, 4).exchange()
    assert program.counter(MISS) >= 1
    assert program.counter(HIT_ORIGINAL) == 0


@pytest.mark.clause("FM-4.7")
@pytest.mark.parametrize(
    "fragment_fields",
    [{"flags": "MF"}, {"frag": 1}, {"flags": "MF", "frag": 1}],
    ids=["first-fragment", "last-fragment", "middle-fragment"],
)
def test_xdp_lookup_skips_ip_fragments(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    fragment_fields: dict[str, Any],
) -> None:
    """The XDP program does not look up IP fragments, whose ports it cannot rely on."""
    program = load_bpf("xdp_flow_lookup", flowmap)
    conn = open_connection(IPPROTO_UDP, 4)
    conn.wait_offloaded()
    packet = Ether(build_frame(router.client, router.lan, conn.tuple))
    run = program.program_fd("xdp_flow_lookup")
    prog_syscalls.run_xdp(run, bytes(packet), router.lan.ifindex, router.namespace)
    assert program.counter(HIT_ORIGINAL) == 1

    # The UDP header stays in the packet, so only the fragment check can prevent a hit.
    for field, value in fragment_fields.items():
        setattr(packet[IP], field, value)
    prog_syscalls.run_xdp(run, bytes(packet), router.lan.ifindex, router.namespace)
    assert (program.counter(HIT_ORIGINAL), program.counter(UNPARSED)) == (1, 1)


_RESERVED_RANGES = ((14, 16), (22, 24), (83, 84), (92, 96))
"""Offsets of the reserved bytes of ``struct bpf_flowmap_value``: first, and one after the last."""
_RESERVED_COUNT = sum(end - begin for begin, end in _RESERVED_RANGES)


def _reserved_bytes(value: uapi.Value) -> bytes:
    return b"".join(bytes(value)[begin:end] for begin, end in _RESERVED_RANGES)


def _addresses(value: uapi.Value, family: int) -> tuple[str, int, str, int]:
    return (
        uapi.format_address(value.src, family),
        value.ports.source,
        uapi.format_address(value.dst, family),
        value.ports.destination,
    )


@pytest.mark.clause(
    "FM-3.3", "FM-3.9", "FM-3.11", "FM-3.12", "FM-3.16", "FM-3.19", "FM-4.3", "SN-4.2"
)
@router_configs
@versions
@protocols
def test_value_matches_translated_tuple_and_output_device(
    router: Router, flowmap: int, open_connection: OpenConnection, protocol: int, version: int
) -> None:
    """Each direction's value matches conntrack's translation and the output device."""
    flow = open_connection(protocol, version).wait_offloaded()
    nat = router.config.nat or ""
    flags = uapi.F_SNAT * ("masquerade" in nat or "snat" in nat) + uapi.F_DNAT * ("dnat" in nat)

    for key, translated, output in (
        (flow.original, flow.entry.reply.reversed(), router.wan),
        (flow.reply, flow.entry.original.reversed(), router.lan),
    ):
        value = bpf.lookup(flowmap, key)
        assert _addresses(value, translated.family) == (
            translated.source,
            translated.source_port,
            translated.destination,
            translated.destination_port,
        )
        assert value.flags == flags
        assert value.oifindex == output.ifindex
        assert value.xmit_type == uapi.XMIT_NEIGH
        assert value.mtu == 1500
        assert (value.ct_mark, value.ct_zone) == (flow.entry.mark, flow.entry.zone)
        assert value.tun_l4proto == 0
        assert _reserved_bytes(value) == bytes(_RESERVED_COUNT)


@pytest.mark.clause("FM-3.13")
@versions
def test_value_holds_output_and_next_hop_mac(
    router: Router, flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """Each direction's value holds the MAC addresses of output device and next hop."""
    flow = open_connection(IPPROTO_UDP, version).wait_offloaded()
    for key, output, next_hop in (
        (flow.original, router.wan, router.server),
        (flow.reply, router.lan, router.client),
    ):
        value = bpf.lookup(flowmap, key)
        assert (uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)) == (
            output.mac,
            next_hop.mac,
        )


def _own_messages(log: int) -> list[str]:
    """Return the messages after the position of a /dev/kmsg that this thread has written.

    Without CONFIG_PRINTK_CALLER a record does not name its writer: all messages count then.
    """
    messages = []
    with suppress(BlockingIOError):  # the end of the log
        while record := os.read(log, 8192).decode(errors="replace"):
            prefix, _, text = record.partition(";")
            fields = prefix.split(",")
            callers = [field for field in fields if field.startswith("caller=")]
            if callers in ([], [f"caller=T{threading.get_native_id()}"]):
                messages.append(text)
    return messages


@pytest.mark.clause("V0-11")
def test_lookups_write_nothing_to_kernel_log(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
) -> None:
    """Lookups by XDP and bpf(2) write nothing to the kernel log.

    Other tasks and interrupts may write to it meanwhile.
    """
    program = load_bpf("xdp_flow_lookup", flowmap)
    conn = open_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    packet = build_frame(router.client, router.lan, conn.tuple)
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    cleanup.callback(os.close, log)
    os.lseek(log, 0, os.SEEK_END)

    run = program.program_fd("xdp_flow_lookup")
    prog_syscalls.run_xdp(run, packet, router.lan.ifindex, router.namespace, repeat=1000)
    for key in flow.keys:
        bpf.lookup(flowmap, key)
    list(bpf.iterate_keys(flowmap))
    assert _own_messages(log) == []


@pytest.mark.clause("FM-3.13", "FM-3.14")
@versions
def test_value_mac_addresses_follow_neighbour_table(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """The value's MAC addresses follow a changed neighbour entry, and are 0 without one."""
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    wan, host = private_router.wan, private_router.server.addresses[version]

    def current_macs() -> tuple[str, str]:
        value = bpf.lookup(private_flowmap, flow.original)
        return uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)

    new_mac = "02:00:00:00:00:99"
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.add_permanent_neigh(wan.ifindex, host, new_mac)],
        wan.namespace,
    )
    assert current_macs() == (wan.mac, new_mac)

    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.delete_neigh(wan.ifindex, host)], wan.namespace
    )
    assert current_macs() == (unknown := "00:00:00:00:00:00", unknown)


@pytest.mark.clause("FM-3.17")
def test_value_expiry_is_within_flow_timeout(
    router: Router, flowmap: int, open_connection: OpenConnection
) -> None:
    """The value's expiry lies within the UDP flow timeout from now."""
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    value = bpf.lookup(flowmap, flow.original)
    remaining = value.expires - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    timeout = int(netns.get_sysctl(router.namespace, "netfilter/nf_flowtable_udp_timeout"))
    # The kernel rounds to jiffies.
    assert 0 < remaining <= (timeout + 1) * 10**9


@pytest.mark.clause("FM-3.18")
def test_value_ct_id_matches_conntrack_entry(flowmap: int, open_connection: OpenConnection) -> None:
    """The values of both directions hold the id of the flow's conntrack entry."""
    flows: list[Flow] = [
        open_connection(IPPROTO_UDP, 4, server_port=port).wait_offloaded()
        for port in (7001, 7002, 7003)
    ]
    for flow in flows:
        ct_ids = {bpf.lookup(flowmap, key).ct_id for key in flow.keys}
        assert ct_ids == {flow.entry.ct_id}
