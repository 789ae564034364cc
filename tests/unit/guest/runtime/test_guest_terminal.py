# SPDX-License-Identifier: GPL-2.0-only
"""Shells and debuggers on a pseudo-terminal, with a scripted host."""

import os
import pdb
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.guest.runtime import channel_debugger, guest_terminal
from fixtures.guest.runtime.forked_test_channel import HostChannel, write_message
from fixtures.guest.runtime.pytest_server import ForkedTest
from fixtures.guest.runtime.virtio_port import VirtioPort
from fixtures.host.vm.channel import Channel
from fixtures.wire import DEBUGGER, TERMINAL, TERMINAL_END, Decoder, Message

TIMEOUT = 60.0


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[VirtioPort, Channel]]:
    """The guest's and the host's end of a channel."""
    monkeypatch.setattr(guest_terminal, "_PROFILE", str(tmp_path / "profile"))
    monkeypatch.setattr(guest_terminal, "namespaces", lambda: "  fm-client")
    guest, host = socket.socketpair()
    with guest, host:
        yield VirtioPort(guest.fileno()), Channel(host)


def _output_until_end(host: Channel) -> tuple[str, int]:
    text = b""
    while (message := host.receive(TIMEOUT)).kind == TERMINAL:
        text += message.blob
    assert message.kind == TERMINAL_END
    return text.decode(), message.body["code"]


def test_command_runs_on_terminal_and_its_status_is_sent(ends: tuple[VirtioPort, Channel]) -> None:
    guest, host = ends
    command = "tty -s && stty size; exit 7"
    guest_terminal.run_shell(
        guest, Message("shell", {"command": command, "rows": 30, "columns": 100})
    )
    text, status = _output_until_end(host)
    assert "30 100" in text
    assert status == 7


def test_shell_shows_namespaces_and_runs_typed_lines(ends: tuple[VirtioPort, Channel]) -> None:
    guest, host = ends
    host.send(Message(TERMINAL, {}, b"echo $((6 * 7)); exit 5\n"))
    guest_terminal.run_shell(guest, Message("shell", {}))
    text, status = _output_until_end(host)
    assert "fm-client" in text
    assert "42" in text
    assert status == 5


def test_order_is_returned_after_stray_keys(ends: tuple[VirtioPort, Channel]) -> None:
    guest, host = ends
    host.send(Message(TERMINAL, {}, b"typed too late"))
    host.send(Message("resume"))
    assert guest_terminal.receive_order(guest).kind == "resume"


def _debugged(channel: HostChannel) -> None:
    """Stop in a function with a local variable."""
    secret = 6 * 7
    channel_debugger.ChannelPdb(channel).set_trace()
    assert secret == 42


class _Child(ForkedTest):
    """The server's end of a test's pipes, with the test in a thread instead of a process."""

    def __init__(self, report_fd: int, order_fd: int) -> None:
        self._decoder = Decoder()
        self._pending = deque()
        self.paused_seconds = 0.0
        self.report_fd = report_fd
        self._order_fd = order_fd


def test_debugger_shows_locals_and_lets_test_continue(ends: tuple[VirtioPort, Channel]) -> None:
    guest, host = ends
    report_fd, report_write = os.pipe()
    order_read, order_write = os.pipe()
    child = _Child(report_fd, order_write)
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            channel = HostChannel(report_write, order_read)
            _debugged(channel)
            # After its terminal is closed: that must not kill the test with SIGHUP.
            channel.receive()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(report_write)

    def serve() -> None:
        while child.relay(guest):
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert host.receive(TIMEOUT).kind == DEBUGGER
    host.send(Message(DEBUGGER, {"rows": 24, "columns": 80}))
    host.send(Message(TERMINAL, {}, b"print(secret)\ncontinue\n"))
    text = b""
    while (message := host.receive(TIMEOUT)).kind == TERMINAL:
        text += message.blob
    assert message.kind == TERMINAL_END
    assert b"42" in text
    write_message(order_write, Message("go on"))
    assert os.waitpid(pid, 0)[1] == 0
    thread.join(TIMEOUT)
    assert child.paused_seconds > 0
    for descriptor in (report_fd, order_read, order_write):
        os.close(descriptor)


def test_debugger_without_terminal_raises_hosts_advice() -> None:
    report_fd, report_write = os.pipe()
    order_read, order_write = os.pipe()
    write_message(order_write, Message(DEBUGGER, {"text": "no terminal"}))
    with pytest.raises(RuntimeError, match="no terminal"):
        channel_debugger.ChannelPdb(HostChannel(report_write, order_read)).interaction(None, None)
    for descriptor in (report_fd, report_write, order_read, order_write):
        os.close(descriptor)


def test_breakpoint_without_channel_names_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "breakpointhook", sys.breakpointhook)
    monkeypatch.setattr(pdb, "set_trace", pdb.set_trace)
    channel_debugger.install(None, "a.py::test_x")
    stop: Any = sys.breakpointhook
    with pytest.raises(RuntimeError, match=r"--pdb a\.py::test_x.*--native"):
        stop()
