# SPDX-License-Identifier: GPL-2.0-only
"""Each bit and each byte of a key counts, for keys of both directions and each encapsulation."""

import errno
import struct
from contextlib import ExitStack

import pytest
from scapy.layers.l2 import Dot1Q, Ether

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology import client_router_server, pppoe
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    build_frame,
    connect,
    flow_from_conntrack,
    send_frames,
)

_SLOT = bytes(4)
_FRAME = bytes(64)
# struct flip_result of selftests/bpf/flip_key_bits.bpf.c
_FLIP_RESULT = struct.Struct(f"=IIII{uapi.KEY_SIZE}s")
_BITS = 8 * uapi.KEY_SIZE
_RESERVED = range(uapi.Key.reserved.offset, uapi.Key.reserved.offset + uapi.Key.reserved.size)
_KINDS = [(protocol, version) for protocol in (IPPROTO_TCP, IPPROTO_UDP) for version in (4, 6)]

each_encapsulation = pytest.mark.parametrize(
    "router",
    [RouterConfig(), RouterConfig(vlans=(7,)), RouterConfig(vlans=(100, 7))],
    ids=router_config_id,
    indirect=True,
)


def _hits_of_flipped_bits(loaded: BpfObject, program: str, key: uapi.Key) -> str | None:
    """Return which bit a program can flip in a key and still hit, or None if there is none."""
    flips = loaded.map_fd("flips")
    bpf.update_raw(flips, _SLOT, _FLIP_RESULT.pack(0, 0, 0, 0, bytes(key)))
    prog_syscalls.run_on_packet(loaded.program_fd(program), _FRAME)
    lookups, hits, first, unflipped, _ = _FLIP_RESULT.unpack(
        bpf.lookup_raw(flips, _SLOT, _FLIP_RESULT.size)
    )
    # The key itself hits before and after.
    assert (lookups, unflipped) == (_BITS, 2), key
    return f"{hits} hits, first with bit {first % 8} of byte {first // 8}" if hits else None


def _assert_every_bit_counts(loaded: BpfObject, keys: list[uapi.Key]) -> None:
    for key in keys:
        for program in ("flip_by_xdp", "flip_by_tc"):
            assert _hits_of_flipped_bits(loaded, program, key) is None, (program, key)


@pytest.mark.clause("FM-5.1")
@each_encapsulation
def test_key_with_one_bit_flipped_misses(
    flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf
) -> None:
    """Programs miss with each of the 704 bits of a key flipped: TCP, UDP, IPv4, IPv6, both ways."""
    loaded = load_bpf("flip_key_bits", flowmap)
    for protocol, version in _KINDS:
        conn = open_connection(protocol, version, server_port=7000 + version)
        _assert_every_bit_counts(loaded, list(conn.wait_offloaded().keys))


@pytest.mark.clause("FM-3.7", "FM-5.1")
def test_key_of_pppoe_session_with_one_bit_flipped_misses(
    private_router: Router, private_flowmap: int, load_bpf: LoadBpf, cleanup: ExitStack
) -> None:
    """Programs miss with each bit of a key with a PPPoE session flipped, and of its reply's."""
    loaded = load_bpf("flip_key_bits", private_flowmap)
    router = pppoe.add_session(private_router, 0x1234, cleanup)
    for protocol, version in _KINDS:
        conn = connect(router, protocol, version, cleanup, server_port=7000 + version)
        _assert_every_bit_counts(loaded, list(conn.wait_offloaded().keys))


@pytest.mark.clause("FM-5.1", "FM-5.2")
@each_encapsulation
def test_key_with_one_byte_changed_misses_from_syscall(
    flowmap: int, open_connection: OpenConnection
) -> None:
    """From bpf(2) each byte of a key counts, in both directions; reserved bytes give EINVAL."""
    for protocol, version in ((IPPROTO_TCP, 4), (IPPROTO_UDP, 6)):
        flow = open_connection(protocol, version, server_port=7000 + version).wait_offloaded()
        for direction, key in enumerate(flow.keys):
            raw = bytes(key)
            for place in range(uapi.KEY_SIZE):
                changed = bytearray(raw)
                changed[place] ^= 1 << place % 8
                expected = errno.EINVAL if place in _RESERVED else errno.ENOENT
                assert _lookup_errno(flowmap, changed) == expected, (direction, place)
            assert bpf.lookup(flowmap, key).dir == direction


def _lookup_errno(fd: int, raw: bytearray) -> int:
    try:
        bpf.lookup(fd, uapi.Key.from_buffer_copy(raw))
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.clause("FM-3.6", "FM-3.12", "FM-5.1")
@pytest.mark.parametrize(
    "indexes",
    [(0x10015, 0x20015), (21, 0x10015), (0x7FFE0016, 0x7FFF0015)],
    ids=["same-low-half", "same-as-other-low-half", "largest"],
)
def test_interface_numbers_beyond_16_bits_are_whole(
    make_flowmap: MakeFlowmap, load_bpf: LoadBpf, cleanup: ExitStack, indexes: tuple[int, int]
) -> None:
    """Keys and values have all 32 bits of an interface number.

    A key with another upper half, or with none, is a miss.
    """
    config = RouterConfig(netns_prefix="wide", router_ifindexes=indexes)
    router = client_router_server.build_router(config, cleanup)
    fd = make_flowmap(router.namespace)
    probe = LookupProbe(load_bpf("lookup_probe", fd, "by_tc"), "by_tc")
    for version in (4, 6):
        flow = connect(
            router, IPPROTO_UDP, version, cleanup, server_port=7000 + version
        ).wait_offloaded()
        assert tuple(key.iifindex for key in flow.keys) == indexes
        for direction, key in enumerate(flow.keys):
            value = bpf.lookup(fd, key)
            assert (value.dir, value.oifindex) == (direction, indexes[1 - direction])
            assert probe.lookup(key) is not None
            others = {key.iifindex & 0xFFFF, key.iifindex ^ 1 << 16, key.iifindex ^ 1 << 31}
            for other in (others | {indexes[1 - direction]}) - {key.iifindex}:
                changed = uapi.Key.from_buffer_copy(key)
                changed.iifindex = other
                assert bpf.lookup_or_none(fd, changed) is None, hex(other)
                assert probe.lookup(changed) is None, hex(other)
    walked = {(key.iifindex, key.l3proto) for key in bpf.iterate_keys(fd)}
    assert walked == {(index, family) for index in indexes for family in (2, 10)}


@pytest.mark.clause("FM-3.7", "FM-4.4", "FM-5.1")
@pytest.mark.parametrize("router", [RouterConfig(vlans=(7,))], ids=router_config_id, indirect=True)
@pytest.mark.parametrize("priority", [5, 7], ids="priority-{}".format)
def test_vlan_id_of_key_has_no_priority_bits(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    load_bpf: LoadBpf,
    priority: int,
) -> None:
    """A flow whose packets have a priority in their tag is found by the VLAN id alone.

    A key with priority bits or the drop-eligible bit beside the id is a miss.
    """
    conn = open_connection(IPPROTO_UDP, 4)
    frame = Ether(build_frame(router.client, router.lan, conn.tuple, vlan=7))
    frame[Dot1Q].prio = priority

    def offloaded() -> bool:
        send_frames(router.client, [bytes(frame)])
        received, peer = conn.server.recvfrom(100)
        assert received == b"crafted"
        conn.server.sendto(b"back", peer)
        assert conn.client.recv(100) == b"back"
        entry = conn.conntrack_entry()
        return entry is not None and entry.offloaded

    wait_for("the connection to be offloaded", offloaded)
    entry = conn.conntrack_entry()
    assert entry is not None
    flow = flow_from_conntrack(router, entry)
    assert [(layer.id, layer.proto) for layer in flow.original.encap][:1] == [(7, 0x8100)]
    assert sorted(map(bytes, bpf.iterate_keys(flowmap))) == sorted(map(bytes, flow.keys))
    assert [layer.id for layer in bpf.lookup(flowmap, flow.reply).encap] == [7, 0]
    for bits in range(1, 16):
        changed = uapi.Key.from_buffer_copy(flow.original)
        changed.encap[0].id |= bits << 12
        assert bpf.lookup_or_none(flowmap, changed) is None, hex(bits)

    # The program takes the id from the packet, without the other bits.
    program = load_bpf("packet_lookup", flowmap, "packets_by_xdp")
    prog_syscalls.run_xdp(
        program.program_fd("packets_by_xdp"), bytes(frame), router.lan.ifindex, router.namespace
    )
    assert [program.counter(slot) for slot in range(4)] == [1, 0, 0, 0]
