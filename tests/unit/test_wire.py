# SPDX-License-Identifier: GPL-2.0-only
"""The wire format: any cut of the stream gives the same messages, and noise is refused."""

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
def test_any_cut_gives_the_same_messages(sent: list[Message], size: int) -> None:
    stream = b"".join(map(encode, sent))
    decoder = Decoder()
    got: list[Message] = []
    for at in range(0, len(stream), size):
        got += decoder.feed(stream[at : at + size])
    assert got == sent


@pytest.mark.parametrize("noise", [b"x" * 12, b"FMS1" + b"\xff" * 8, b"FMS1\0\0\0\1\0\0\0\0{"])
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(WireError):
        list(Decoder().feed(noise))


def test_channel_gives_what_the_other_end_sends() -> None:
    here, there = socket.socketpair()
    there.sendall(encode(Message("a", {"n": 1})) + encode(Message("b", {}, b"blob")))
    channel = Channel(here)
    assert channel.receive(1) == Message("a", {"n": 1})
    assert channel.receive(1).blob == b"blob"


def test_channel_tells_silence_from_an_end() -> None:
    here, there = socket.socketpair()
    channel = Channel(here)
    with pytest.raises(ChannelTimeout):
        channel.receive(0.01)
    there.close()
    with pytest.raises(ChannelClosed):
        channel.receive(1)


def test_channel_refuses_noise() -> None:
    here, there = socket.socketpair()
    threading.Thread(target=there.sendall, args=(b"login: login: login: ",)).start()
    with pytest.raises(ChannelClosed, match="not a message"):
        Channel(here).receive(1)
