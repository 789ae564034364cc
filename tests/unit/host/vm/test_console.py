# SPDX-License-Identifier: GPL-2.0-only
"""The console: read while nobody looks, complete after the end, loud when it cannot be read."""

import socket
import threading
from pathlib import Path

import pytest

from fixtures.host.util.errors import InfraError
from fixtures.host.vm.console import Console


def test_everything_written_before_the_end_is_there(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    console = Console(here, tmp_path / "console.log")
    text = "".join(f"line {number}\r\n" for number in range(10_000))
    writer = threading.Thread(target=there.sendall, args=(text.encode(),))
    writer.start()
    writer.join()
    there.close()
    console.finish()
    assert console.text() == text.replace("\r\n", "\n")
    console.close()


def test_waiting_ends_with_the_line_or_with_the_console(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    console = Console(here, tmp_path / "console.log")
    threading.Timer(0.05, there.sendall, [b"flowmap: end of 1\n"]).start()
    assert console.wait_for("end of 1", 5)
    threading.Timer(0.05, there.close).start()
    assert not console.wait_for("end of 2", 60)
    console.close()


def test_an_unreadable_console_is_not_silence(tmp_path: Path) -> None:
    here, _there = socket.socketpair()
    console = Console(here, tmp_path / "console.log")
    console.close()
    with pytest.raises(InfraError, match="cannot be read"):
        console.text()
