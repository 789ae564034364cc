# SPDX-License-Identifier: GPL-2.0-only
"""However a run ends, no QEMU outlives it; a run that was interrupted leaves its report."""

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.canary.inner_run import HERE, ROOT, command, environment

VICTIM = f"{HERE}/test_user_space.py::test_qemu_is_killed"  # waits; nobody is there to kill it
_SECONDS = 300


def _wait(what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < until, f"waited {_SECONDS} s for {what}"
        time.sleep(0.1)


def _processes(mark: str) -> list[str]:
    """Return the command lines of living processes that carry the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # gone meanwhile
    return found


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A job in the background ignores SIGINT, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_run(tmp_path: Path, workers: str, how: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    options = ("-n", workers) if workers != "0" else ()
    with subprocess.Popen(
        command(tmp_path, *options, "-p", "no:tests.canary.fault_plugin", VICTIM),
        cwd=ROOT,
        env=environment(FLOWMAP_MARK=mark),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        # The machine that made the layer may live a moment longer than it took to make it;
        # the one that starts from it is the test's.
        _wait(
            "a machine that runs the test",
            lambda: any("qemu" in line and "/S2" in line for line in _processes(mark)),
        )
        os.kill(run.pid, how)
        run.wait(_SECONDS)
    _wait("all processes to be gone", lambda: not _processes(mark))
    if how is not signal.SIGKILL:
        assert json.loads((tmp_path / "summary.json").read_text())["info"]["interrupted"]
        assert run.returncode == 2
