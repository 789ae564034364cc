# SPDX-License-Identifier: GPL-2.0-only
"""Messages over real sockets to a peer that reads slowly, not at all, or has exited."""

import socket
import threading
from collections.abc import Iterator

import pytest

from fixtures.host.vm.channel import Channel, ChannelClosed, ChannelTimeout
from fixtures.wire import Message

LARGE = Message("deliver", {}, bytes(4 << 20))
"""Larger than the buffers of a socket pair."""


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """Return the host's channel and the guest's socket."""
    host, guest = socket.socketpair()
    with host, guest:
        yield Channel(host), guest


def test_send_to_peer_that_reads_nothing_times_out(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends
    with pytest.raises(ChannelTimeout, match="did not read the message deliver"):
        channel.send(LARGE, seconds=0.05)


def test_send_to_peer_that_reads_arrives_whole(ends: tuple[Channel, socket.socket]) -> None:
    channel, guest = ends
    received: list[Message] = []
    reader = threading.Thread(target=lambda: received.append(Channel(guest).receive(60)))
    reader.start()
    channel.send(LARGE)
    reader.join()
    assert received == [LARGE]


def test_send_to_closed_peer_is_channel_closed(ends: tuple[Channel, socket.socket]) -> None:
    channel, guest = ends
    guest.close()
    with pytest.raises(ChannelClosed):
        channel.send(LARGE)
