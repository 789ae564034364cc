# SPDX-License-Identifier: GPL-2.0-only
"""Sessions between a terminal and a scripted guest."""

import os
import pty
import socket
import termios
from collections.abc import Iterator

import pytest

from fixtures.host.vm import terminal
from fixtures.host.vm.channel import Channel, ChannelClosed
from fixtures.wire import TERMINAL, TERMINAL_END, Message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    host, guest = socket.socketpair()
    with host, guest:
        yield Channel(host), Channel(guest)


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Read and write end of standard input, and of standard output."""
    descriptors = (*os.pipe(), *os.pipe())
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_output_is_written_and_status_returned(
    ends: tuple[Channel, Channel], pipes: tuple[int, int, int, int]
) -> None:
    host, guest = ends
    keys, _, shown, output = pipes
    guest.send(Message(TERMINAL, {}, b"hello "))
    guest.send(Message(TERMINAL, {}, b"world"))
    guest.send(Message(TERMINAL_END, {"code": 3}))
    assert terminal.run_session(host, keys, output) == 3
    assert os.read(shown, 100) == b"hello world"


def test_keys_are_sent_and_end_of_input_is_ctrl_d(
    ends: tuple[Channel, Channel], pipes: tuple[int, int, int, int]
) -> None:
    host, guest = ends
    reader, writer = os.pipe()
    os.write(writer, b"ls\n")
    os.close(writer)
    received: list[bytes] = []

    class EndsAtCtrlD(Channel):
        def send(self, message: Message, seconds: float = 0.0) -> None:  # noqa: ARG002
            received.append(message.blob)
            if message.blob == b"\x04":
                guest.send(Message(TERMINAL_END))

    assert terminal.run_session(EndsAtCtrlD(host._sock), reader, pipes[3]) == 0
    assert received == [b"ls\n", b"\x04"]
    os.close(reader)


def test_qemu_exit_ends_session(
    ends: tuple[Channel, Channel], pipes: tuple[int, int, int, int]
) -> None:
    host, guest = ends
    guest.close()
    with pytest.raises(ChannelClosed):
        terminal.run_session(host, pipes[0], pipes[3])


def test_session_in_terminal_is_raw_and_ctrl_bracket_leaves(
    ends: tuple[Channel, Channel], pipes: tuple[int, int, int, int]
) -> None:
    host, _ = ends
    _, _, _, output = pipes
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    try:
        os.write(master, terminal.LEAVE)
        # In cooked mode the key would wait for a line end: returning shows that the mode is raw.
        assert terminal.run_session(host, slave, output) is None
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_window_size_of_no_terminal() -> None:
    reader, writer = os.pipe()
    assert terminal.window_size(reader) == {"rows": 24, "columns": 80}
    os.close(reader)
    os.close(writer)
