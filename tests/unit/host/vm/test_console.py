# SPDX-License-Identifier: GPL-2.0-only
"""Console: read in the background, complete after QEMU exits, an error when unreadable."""

import socket
import threading
from pathlib import Path

import pytest

from fixtures.host.util.errors import InfraError
from fixtures.host.vm.console import Console


def test_console_after_qemu_exits_is_complete(tmp_path: Path) -> None:
    host, qemu = socket.socketpair()
    console = Console(host, tmp_path / "console.log")
    text = "".join(f"line {number}\r\n" for number in range(10_000))
    writer = threading.Thread(target=qemu.sendall, args=(text.encode(),))
    writer.start()
    writer.join()
    qemu.close()
    console.wait_eof()
    assert console.text() == text.replace("\r\n", "\n")
    console.close()


def test_wait_for_returns_on_match_or_end_of_console(tmp_path: Path) -> None:
    host, qemu = socket.socketpair()
    console = Console(host, tmp_path / "console.log")
    threading.Timer(0.05, qemu.sendall, [b"flowmap: end of 1\n"]).start()
    assert console.wait_for("end of 1", 5)
    threading.Timer(0.05, qemu.close).start()
    assert not console.wait_for("end of 2", 60)
    console.close()


def test_unreadable_console_raises(tmp_path: Path) -> None:
    host, _qemu = socket.socketpair()
    console = Console(host, tmp_path / "console.log")
    console.close()
    with pytest.raises(InfraError, match="cannot be read"):
        console.text()
