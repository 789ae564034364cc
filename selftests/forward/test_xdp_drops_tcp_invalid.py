# SPDX-License-Identifier: GPL-2.0-only
"""TCP window and flag checks: XDP drops the segments that conntrack finds invalid."""

import fcntl
import socket
import struct
import termios
from collections.abc import Callable

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import nftables
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.bulk_transfer import BulkTransfer
from fixtures.guest.traffic.connections import IPPROTO_TCP, Connection, send_frames
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

_PAYLOAD = b"a segment by hand"
_BEYOND_WINDOW = 1 << 30
_SEQ_MODULO = 1 << 32

DROP_INVALID = """
table inet guard {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state invalid counter drop
  }
}
"""
"""The rules by which a router without XDP drops such segments."""


def _seq_after_window(segment: TCP) -> None:
    segment.seq = (segment.seq + _BEYOND_WINDOW) % _SEQ_MODULO


def _seq_before_window(segment: TCP) -> None:
    segment.seq = (segment.seq - _BEYOND_WINDOW) % _SEQ_MODULO


def _ack_of_unsent_data(segment: TCP) -> None:
    segment.ack = (segment.ack + _BEYOND_WINDOW) % _SEQ_MODULO


def _ack_of_old_data(segment: TCP) -> None:
    segment.ack = (segment.ack - _BEYOND_WINDOW) % _SEQ_MODULO


def _retransmission(segment: TCP) -> None:
    """Change nothing: the same segment again, as after a loss."""


def _no_flags(segment: TCP) -> None:
    segment.flags = 0


def _no_ack_flag(segment: TCP) -> None:
    segment.flags = "P"


OUT_OF_WINDOW = [_seq_after_window, _ack_of_unsent_data]
BAD_FLAGS = [_no_flags, _no_ack_flag]
# The receiver handles old segments itself.
ACCEPTED = [_seq_before_window, _ack_of_old_data, _retransmission]
Change = Callable[[TCP], None]


def _change_id(change: Change) -> str:
    """Return the parameter id of a change."""
    return change.__name__.lstrip("_").replace("_", "-")


def _unacked_bytes(side: socket.socket) -> int:
    """Return how many sent bytes the peer has not acknowledged: tcp(7), SIOCOUTQ."""
    (count,) = struct.unpack("i", fcntl.ioctl(side, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _changed_segment(router: Router, conn: Connection, change: Change) -> bytes:
    """Return a changed copy of a segment that the client has just sent, as an Ethernet frame.

    All packets of the exchange have crossed the router by then. The client may delay its
    last ACK by 40 ms and more; that ACK must not be counted with what is sent next.
    """
    with tx_capture.capture_tx(router.client.namespace) as sent:
        conn.exchange(_PAYLOAD)
        wait_for(
            "both sides to acknowledge all data",
            lambda: not _unacked_bytes(conn.client) and not _unacked_bytes(conn.server),
        )
        packet = Ether(sent(router.client.device, _PAYLOAD)[-1])
    change(packet[TCP])
    del packet[TCP].chksum
    return bytes(packet)


def _reaches_server(router: Router, segment: bytes) -> bool:
    """Send a frame from the client; return whether the server receives it."""
    with rx_capture.capture_rx(router.server) as arrived:
        send_frames(router.client, [segment])
        return bool(arrived(_PAYLOAD, 0))


@pytest.mark.clause("FM-3.20", "FM-4.7")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("change", [*OUT_OF_WINDOW, *BAD_FLAGS, *ACCEPTED], ids=_change_id)
def test_segment_out_of_window_or_with_bad_flags_is_dropped(
    private_router: Router,
    open_private_connection: OpenConnection,
    xdp_forwarder: XdpForwarder,
    change: Change,
    version: int,
) -> None:
    """XDP drops segments out of the window or with bad flags, and forwards old ones."""
    conn = open_private_connection(IPPROTO_TCP, version)
    conn.wait_offloaded()
    segment = _changed_segment(private_router, conn, change)
    before = xdp_forwarder.result_counts()
    received = _reaches_server(private_router, segment)
    counted = xdp_forwarder.result_counts() - before
    del counted[ForwardResult.NOT_TCP_OR_UDP]  # neighbour discovery, at any time
    if change in OUT_OF_WINDOW:
        assert (received, counted) == (False, {ForwardResult.OUT_OF_WINDOW: 1})
    elif change in BAD_FLAGS:
        assert (received, counted) == (False, {ForwardResult.BAD_TCP_FLAGS: 1})
    else:
        assert received
        assert counted[ForwardResult.FORWARDED] >= 1
    conn.exchange()  # the connection still works


@pytest.mark.clause("FM-3.20")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=["stack"], indirect=True
)
@pytest.mark.parametrize("change", [*OUT_OF_WINDOW, *BAD_FLAGS, *ACCEPTED], ids=_change_id)
def test_conntrack_without_offload_finds_same_segments_invalid(
    private_router: Router, open_private_connection: OpenConnection, change: Change
) -> None:
    """Conntrack without offload calls the same segments invalid: the reference for XDP.

    The router must not offload: conntrack learns the windows again when a flow comes back to
    it (flow_offload_fixup_tcp() in net/netfilter/nf_flow_table_core.c).
    """
    nftables.run(DROP_INVALID, private_router.namespace)
    conn = open_private_connection(IPPROTO_TCP, 4)
    conn.exchange()
    assert _reaches_server(private_router, _changed_segment(private_router, conn, change)) == (
        change in ACCEPTED
    )


@pytest.mark.clause("FM-3.20", "FM-4.7")
def test_tcp_transfer_with_window_scaling_stays_in_window(
    open_private_connection: OpenConnection, xdp_forwarder: XdpForwarder
) -> None:
    """XDP drops no segment of a 1 MiB transfer, whose windows are scaled.

    XDP must know the window scale from the SYNs; without it the transfer would stop.
    """
    conn = open_private_connection(IPPROTO_TCP, 4)
    conn.wait_offloaded()
    before = xdp_forwarder.result_counts()
    size = 1 << 20
    assert BulkTransfer(conn, size, seed=1).received_intact()
    counted = xdp_forwarder.result_counts() - before
    assert counted[ForwardResult.OUT_OF_WINDOW] == 0
    assert counted[ForwardResult.FORWARDED] > size // 1500
