# SPDX-License-Identifier: GPL-2.0-only
"""Message format: decoding does not depend on how bytes are split, and rejects noise."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.host.vm.channel import Channel, ChannelClosed, ChannelTimeout
from fixtures.wire import Decoder, Message, WireError, encode

messages = st.builds(
    Message,
    st.text(max_size=10),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=3),
    st.binary(max_size=200),
)


@given(st.lists(messages, max_size=5), st.integers(1, 50))
def test_decoder_with_any_split_yields_the_same_messages(sent: list[Message], size: int) -> None:
    stream = b"".join(map(encode, sent))
    decoder = Decoder()
    decoded: list[Message] = []
    for start in range(0, len(stream), size):
        decoded += decoder.feed(stream[start : start + size])
    assert decoded == sent


@pytest.mark.parametrize(
    "noise",
    [b"x" * 12, b"FMS1" + b"\xff" * 8, b"FMS1\0\0\0\1\0\0\0\0{"],
    ids=["bad-magic", "too-long", "bad-json"],
)
def test_decoder_rejects_noise(noise: bytes) -> None:
    with pytest.raises(WireError):
        list(Decoder().feed(noise))


def test_channel_receives_messages_of_other_end() -> None:
    host, guest = socket.socketpair()
    guest.sendall(encode(Message("a", {"n": 1})) + encode(Message("b", {}, b"blob")))
    channel = Channel(host)
    assert channel.receive(1) == Message("a", {"n": 1})
    assert channel.receive(1).blob == b"blob"


def test_channel_timeout_differs_from_close() -> None:
    host, guest = socket.socketpair()
    channel = Channel(host)
    with pytest.raises(ChannelTimeout):
        channel.receive(0.01)
    guest.close()
    with pytest.raises(ChannelClosed):
        channel.receive(1)


def test_channel_closes_on_noise() -> None:
    host, guest = socket.socketpair()
    threading.Thread(target=guest.sendall, args=(b"login: login: login: ",)).start()
    with pytest.raises(ChannelClosed, match="not a message"):
        Channel(host).receive(1)
