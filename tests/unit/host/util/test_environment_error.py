# SPDX-License-Identifier: GPL-2.0-only
"""Errors of the machine: one line, exit status 2, no traceback."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.host.util.atomic_write import write_atomic
from fixtures.host.util.cli_main import run_cli
from fixtures.host.util.environment_error import describe, is_disk_full
from fixtures.host.util.errors import InfraError, UserError
from fixtures.host.util.subprocess_util import CommandError, run
from tests.unit.host.util.small_file_system import fill, small_file_system


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the signal handler that run_cli() replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def failing(*argv: str) -> Callable[[], int]:
    """Return a command's work that runs a program, which fails."""

    def work() -> int:
        run(argv)
        return 0

    return work


def raising(error: BaseException) -> Callable[[], int]:
    """Return a command's work that raises an error."""

    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (lambda: 0, 0, ""),
        (raising(UserError("wrong")), 2, "error: wrong"),
        (raising(InfraError("broken")), 3, "error: the harness failed: broken"),
        (
            failing("sh", "-c", "echo one; echo 'x: error: two' >&2; echo three >&2; exit 4"),
            2,
            "error: sh failed with exit status 4: x: error: two",
        ),
        (failing("sh", "-c", "exit 4"), 2, "error: sh failed with exit status 4: no output"),
        (failing("no-such-program"), 2, "error: no-such-program: No such file or directory"),
        (
            raising(PermissionError(errno.EACCES, "Permission denied", "/cache/lock")),
            2,
            "error: /cache/lock: Permission denied: make it accessible, or set FLOWMAP_CACHE",
        ),
        (raising(subprocess.TimeoutExpired(["make"], 3)), 2, "error: make did not end within 3 s"),
        (raising(OSError("no number")), 2, "error: no number"),
        (raising(KeyboardInterrupt()), 130, "stopped"),
    ],
)
def test_command_ends_with_one_line(
    work: Callable[[], int], status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(work, "stopped") == status
    assert capsys.readouterr().err.startswith(line)


def test_command_on_full_disk_says_how_to_free_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_file_system(tmp_path / "full", 64) as full:
        fill(full)

        def write() -> int:
            write_atomic(full / "state", bytes(65536))
            return 0

        assert run_cli(write, "") == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "No space left on device: free disk space (`tox -e cache -- list`" in message
        assert not (full / "state").exists()

        (tmp_path / "large").write_bytes(bytes(65536))
        assert run_cli(failing("cp", str(tmp_path / "large"), str(full)), "") == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "cp failed with exit status 1" in message
        assert "tox -e cache -- list" in message


def test_full_disk_is_told_from_other_errors() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert is_disk_full(CommandError(["ld"], 1, "", "final link failed: No space left on device"))
    assert not is_disk_full(CommandError(["ld"], 1, "", "undefined reference"))
    assert not is_disk_full(ValueError())
    assert describe(ValueError("several\nlines")) == "several lines"
