# SPDX-License-Identifier: GPL-2.0-only
"""TCP's windows and flags: the program drops what conntrack holds to be invalid."""

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
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import rx_capture, tx_capture
from fixtures.guest.traffic.bulk_transfer import Transfer
from fixtures.guest.traffic.connections import TCP_PROTOCOL, Connection, send_frames
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

_MARK = b"a segment by hand"
_FAR = 1 << 30
_WORD = 1 << 32

INVALID = """
table inet guard {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state invalid counter drop
  }
}
"""
"""What a router that has no program drops such segments by."""


def _ahead(segment: TCP) -> None:
    segment.seq = (segment.seq + _FAR) % _WORD


def _behind(segment: TCP) -> None:
    segment.seq = (segment.seq - _FAR) % _WORD


def _acknowledges_what_was_never_sent(segment: TCP) -> None:
    segment.ack = (segment.ack + _FAR) % _WORD


def _acknowledges_long_ago(segment: TCP) -> None:
    segment.ack = (segment.ack - _FAR) % _WORD


def _again(segment: TCP) -> None:
    """The same once more, as after a loss."""


def _without_flags(segment: TCP) -> None:
    segment.flags = 0


def _without_ack(segment: TCP) -> None:
    segment.flags = "P"


OUTSIDE = [_ahead, _acknowledges_what_was_never_sent]
FLAGS = [_without_flags, _without_ack]
# What is old is for its receiver to answer.
PASS = [_behind, _acknowledges_long_ago, _again]
Change = Callable[[TCP], None]


def _name(change: Change) -> str:
    return change.__name__.lstrip("_")


def _unacknowledged(side: socket.socket) -> int:
    """How many octets of what a side has sent the other has not acknowledged: tcp(7), SIOCOUTQ."""
    (octets,) = struct.unpack("i", fcntl.ioctl(side, termios.TIOCOUTQ, bytes(4)))
    return int(octets)


def _segment(router: Router, talk: Connection, change: Change) -> bytes:
    """A segment that the client has just sent, changed, as it would put it on the wire.

    Whatever the exchange brought about has crossed the router: the client may delay its last
    acknowledgment by 40 ms and more, and that must not be counted with what is sent next.
    """
    with tx_capture.frames(router.client.namespace) as sent:
        talk.exchange(_MARK)
        wait_for(
            "both sides to have acknowledged all",
            lambda: not _unacknowledged(talk.client) and not _unacknowledged(talk.server),
        )
        packet = Ether(sent(router.client.device, _MARK)[-1])
    change(packet[TCP])
    del packet[TCP].chksum
    return bytes(packet)


def _comes_through(router: Router, segment: bytes) -> bool:
    with rx_capture.frames(router.server) as arrived:
        send_frames(router.client, [segment])
        return bool(arrived(_MARK, 0))


@pytest.mark.clause("FM-3", "FM-4")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("change", [*OUTSIDE, *FLAGS, *PASS], ids=_name)
def test_program_drops_what_is_outside_its_window_or_has_bad_flags(
    own_router: Router,
    own_connection: Connect,
    forwarder: Forwarder,
    change: Change,
    version: int,
) -> None:
    talk = own_connection(TCP_PROTOCOL, version)
    talk.offloaded()
    segment = _segment(own_router, talk, change)
    before = forwarder.fates()
    comes = _comes_through(own_router, segment)
    counted = forwarder.fates() - before
    del counted[Fate.NOT_TCP_OR_UDP]  # hosts ask for each other when they like
    if change in OUTSIDE:
        assert (comes, counted) == (False, {Fate.OUT_OF_WINDOW: 1})
    elif change in FLAGS:
        assert (comes, counted) == (False, {Fate.BAD_FLAGS: 1})
    else:
        assert comes
        assert counted[Fate.FORWARDED] >= 1
    talk.exchange()  # the connection has not suffered


@pytest.mark.clause("FM-3")
@pytest.mark.parametrize("own_router", [Plan(tables="none")], ids=["stack"], indirect=True)
@pytest.mark.parametrize("change", [*OUTSIDE, *FLAGS, *PASS], ids=_name)
def test_conntrack_holds_the_same_to_be_invalid(
    own_router: Router, own_connection: Connect, change: Change
) -> None:
    """The other side of the comparison: a router that offloads nothing.

    One that did would not do: conntrack learns the windows anew when a flow comes back to it
    (flow_offload_fixup_tcp() in net/netfilter/nf_flow_table_core.c).
    """
    nftables.run(INVALID, own_router.namespace)
    talk = own_connection(TCP_PROTOCOL, 4)
    talk.exchange()
    assert _comes_through(own_router, _segment(own_router, talk, change)) == (change in PASS)


@pytest.mark.clause("FM-3", "FM-10")
def test_nothing_of_a_connection_is_out_of_its_window(
    own_connection: Connect, forwarder: Forwarder
) -> None:
    """Windows are scaled: without the SYNs' word for it a transfer would be cut."""
    talk = own_connection(TCP_PROTOCOL, 4)
    talk.offloaded()
    before = forwarder.fates()
    size = 1 << 20
    assert Transfer(talk, size, seed=1).arrives()
    counted = forwarder.fates() - before
    assert counted[Fate.OUT_OF_WINDOW] == 0
    assert counted[Fate.FORWARDED] > size // 1500
