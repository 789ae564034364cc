# SPDX-License-Identifier: GPL-2.0-only
"""A run ended by a signal leaves no process; one ended by SIGINT or SIGTERM writes its report."""

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.canary.inner_run import (
    FAULTY_TESTS,
    ROOT,
    inner_environment,
    marked_processes,
    pytest_command,
    wait_until,
)

# Without the fault plugin its QEMU is not killed: it waits until its deadline.
_WAITING_TEST = f"{FAULTY_TESTS}/test_user_space.py::test_qemu_is_killed"
_TIMEOUT = 300  # seconds


@pytest.fixture(autouse=True)
def _restored_sigint_handler() -> Iterator[None]:
    """Restore the handler that the test sets for its subprocesses, which inherit SIG_IGN only."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", ["0", "2"], ids=["no-workers", "2-workers"])
@pytest.mark.parametrize(
    ("ending_signal", "sigint_handler"),
    [
        (signal.SIGKILL, signal.default_int_handler),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.default_int_handler),
        # A background job of a shell.
        (signal.SIGTERM, signal.SIG_IGN),
    ],
    ids=["sigkill", "sigint", "sigterm", "sigterm-in-background"],
)
def test_run_ended_by_signal_leaves_no_process(
    tmp_path: Path,
    workers: str,
    ending_signal: signal.Signals,
    sigint_handler: Callable[..., Any] | signal.Handlers,
) -> None:
    signal.signal(signal.SIGINT, sigint_handler)
    mark = uuid.uuid4().hex
    options = ("-n", workers) if workers != "0" else ()
    with subprocess.Popen(
        pytest_command(tmp_path, *options, "-p", "no:tests.canary.fault_plugin", _WAITING_TEST),
        cwd=ROOT,
        env=inner_environment(FLOWMAP_MARK=mark),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        # The QEMU that saves S2 maps a memory file of its own and may still run; only a QEMU
        # that restores S2 has its path on the command line.
        wait_until(
            lambda: any("qemu" in line and "/S2" in line for line in marked_processes(mark)),
            "QEMU restores the snapshot S2 for the test",
        )
        os.kill(run.pid, ending_signal)
        run.wait(_TIMEOUT)
    wait_until(lambda: not marked_processes(mark), "all processes of the run have exited")
    if ending_signal is not signal.SIGKILL:
        assert json.loads((tmp_path / "summary.json").read_text())["info"]["interrupted"]
        assert run.returncode == 2
