# SPDX-License-Identifier: GPL-2.0-only
"""``tox -e shell``: errors are one line, and the cache is in use as long as the shell runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.host.shell import cli
from fixtures.host.util.cache_use import LOCK_FILE
from fixtures.host.util.errors import InfraError, UserError
from fixtures.host.util.paths import ROOT


def test_cache_is_in_use_while_the_shell_runs(tmp_path: Path) -> None:
    command = f"flock --nonblock {tmp_path / LOCK_FILE} true && echo free || echo in use"
    script = (
        "from fixtures.host.shell import cli\n"
        f"cli.vng_command = lambda _: ['/bin/sh', '-c', {command!r}]\n"
        "cli.main([])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "FLOWMAP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "in use\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("vng is not on PATH"), 2, "error: vng is not on PATH\n"),
        (InfraError("QEMU exited"), 3, "error: the harness failed: QEMU exited\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["input", "harness", "ctrl-c"],
)
def test_error_before_the_shell_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    line: str,
) -> None:
    def fail(_args: object) -> list[str]:
        raise error

    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path))
    monkeypatch.setattr(cli, "vng_command", fail)
    assert cli.main([]) == status
    assert capsys.readouterr().err == line
