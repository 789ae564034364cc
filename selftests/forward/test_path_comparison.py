# SPDX-License-Identifier: GPL-2.0-only
"""The same packets over four forwarding paths arrive byte-identical.

The paths are XDP with the flow map, XDP with the kfunc ``bpf_xdp_flow_lookup()``, the
flowtable's own fast path, and the stack alone.
"""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable, netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import NFT_TABLE, Router, RouterConfig
from fixtures.guest.traffic import headers_from_value, rx_capture, tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, send_frames
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

protocols = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
ROUTER_CONFIGS = [RouterConfig(), RouterConfig(nat="masquerade"), RouterConfig(nat="snat+dnat")]

_KFUNC = "xdp_kfunc_forward"
_SMALL_MTU = 1400
_HEADERS_LEN = 80  # bytes: IPv6 and TCP with timestamps need 72
_SEQ_OFFSET = 2000  # bytes
_SEQ_MODULO = 1 << 32
_TAG = b"the same through all"
_NO_ICMP_RATELIMIT = {"ipv4/icmp_ratelimit": 0, "ipv6/icmp/ratelimit": 0}


def _packet_variants(template: bytes) -> list[bytes]:
    """Build variants of a packet in the fields that a router must handle with care.

    Odd and even lengths, TOS values, TTLs down to 1, no UDP checksum, and one packet above
    the MTU. Each has a payload of its own.

    Args:
        template: a frame that the client's socket has sent.
    """
    packets: list[Ether] = []

    def add_variant(change: Callable[[Ether], None], size: int = 100) -> None:
        packet = Ether(template)
        transport = packet[TCP if TCP in packet else UDP]
        if TCP in packet:  # already received data: the server's socket ignores it
            transport.seq = (transport.seq - _SEQ_OFFSET) % _SEQ_MODULO
        transport.payload = Raw(_TAG.ljust(size, bytes([len(packets)])))
        for part in packet.iterpayloads():
            for field in ("len", "plen", "chksum"):
                if field in part.fields:
                    delattr(part, field)
        change(packet)
        packets.append(packet)

    def set_tos(tos: int) -> Callable[[Ether], None]:
        def change(packet: Ether) -> None:
            if IP in packet:
                packet[IP].tos, packet[IP].id, packet[IP].flags = tos, tos << 8, "DF"
            else:
                packet[IPv6].tc, packet[IPv6].fl = tos, tos << 8

        return change

    def set_ttl(ttl: int) -> Callable[[Ether], None]:
        def change(packet: Ether) -> None:
            if IP in packet:
                packet[IP].ttl = ttl
            else:
                packet[IPv6].hlim = ttl

        return change

    def clear_udp_checksum(packet: Ether) -> None:
        packet[UDP].chksum = 0

    for size in (len(_TAG), 61, 100, 1001, _SMALL_MTU - _HEADERS_LEN):
        add_variant(lambda _: None, size)
    for tos in (0x00, 0x01, 0xB8, 0xFF):
        add_variant(set_tos(tos))
    for ttl in (255, 3, 2, 1):
        add_variant(set_ttl(ttl))
    if UDP in packets[0]:
        add_variant(clear_udp_checksum)
    add_variant(set_tos(0), _SMALL_MTU)  # with headers above the MTU
    return [bytes(packet) for packet in packets]


def _icmp_payload(frame: bytes) -> bytes:
    """Return the ICMP error in a frame without its IP header, whose id and TTL may differ."""
    packet = Ether(frame)
    return bytes(packet[ICMP] if IP in packet else packet[IPv6].payload)


def _forward_all(conn: Connection, frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Send frames from the client, one by one.

    Returns:
        The frames that reach the server, and the ICMP errors that the client gets.
    """
    router = conn.router
    with (
        rx_capture.capture_rx(router.server) as at_server,
        rx_capture.capture_rx(router.client) as at_client,
    ):
        for count, data in enumerate(frames, start=1):
            send_frames(router.client, [data])
            wait_for(
                f"packet {count} at the server, or its ICMP error at the client",
                lambda: len(at_server(_TAG, 0)) + len(at_client(_TAG, 0)) == count,  # noqa: B023
            )
        _drain_sockets(conn)
        return at_server(_TAG, 0), [_icmp_payload(frame) for frame in at_client(_TAG, 0)]


def _drain_sockets(conn: Connection) -> None:
    """Read what the variants left in the connection's sockets."""
    conn.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if conn.tuple.protocol == IPPROTO_UDP:
        timeout = conn.server.gettimeout()
        conn.server.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                conn.server.recv(1 << 16)
        conn.server.settimeout(timeout)


def _captured_frame(conn: Connection) -> bytes:
    """Return a frame that the client's socket has just sent."""
    with tx_capture.capture_tx(conn.router.client.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        return sent(conn.router.client.device, tx_capture.PAYLOAD)[-1]


@pytest.mark.clause("FM-3.20", "FM-4.7", "FM-12.2")
@pytest.mark.parametrize("private_router", ROUTER_CONFIGS, ids=router_config_id, indirect=True)
@versions
@protocols
def test_packet_variants_over_four_paths_arrive_identical(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    protocol: int,
    version: int,
) -> None:
    """Packet variants give the same frames and the same ICMP errors over all four paths."""
    router = private_router
    narrow = [rtnetlink.set_mtu(router.wan.ifindex, _SMALL_MTU)]
    netlink.transact(netlink.NETLINK_ROUTE, narrow, router.namespace)
    netns.set_sysctls(router.namespace, _NO_ICMP_RATELIMIT)
    results: dict[str, tuple[list[bytes], list[bytes]]] = {}

    with ExitStack() as attached:
        forwarder = XdpForwarder(router, private_flowmap, attached)
        conn = open_private_connection(protocol, version)
        conn.wait_offloaded()
        variants = _packet_variants(_captured_frame(conn))
        before = forwarder.result_counts()
        results["flow map"] = _forward_all(conn, variants)
        counted = forwarder.result_counts() - before
        assert counted[ForwardResult.TTL_EXPIRES] == counted[ForwardResult.TOO_LARGE] == 1
        assert counted[ForwardResult.FORWARDED] >= len(variants) - 2

    with ExitStack() as attached:
        loaded = BpfObject(_KFUNC, {})
        attached.callback(loaded.close)
        for port in (router.lan, router.wan):
            loaded.attach_xdp(_KFUNC, port.ifindex, router.namespace, attached)
        conn.wait_reoffloaded()
        before_kfunc = loaded.counter(0)
        results["kfunc"] = _forward_all(conn, variants)
        assert loaded.counter(0) - before_kfunc >= len(variants) - 2

    conn.wait_reoffloaded()
    results["flowtable"] = _forward_all(conn, variants)

    flowtable.drop_table(NFT_TABLE, router.namespace)
    wait_for(
        "conntrack to clear IPS_OFFLOAD", lambda: (e := conn.conntrack_entry()) and not e.offloaded
    )
    results["stack"] = _forward_all(conn, variants)

    arrived, icmp_errors = results["stack"]
    assert (len(arrived), len(icmp_errors)) == (len(variants) - 2, 2)
    assert [headers_from_value.checksums_valid(frame) for frame in arrived].count(False) == (
        protocol == IPPROTO_UDP
    )
    for path, (path_frames, path_errors) in results.items():
        assert path_frames == arrived, path
        assert path_errors == icmp_errors, path
