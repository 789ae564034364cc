# SPDX-License-Identifier: GPL-2.0-only
"""SIGTERM acts like Ctrl-C, also in a background job of a shell; a second one ends at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures.host.util.paths import ROOT
from fixtures.host.util.sigterm import sigterm_as_ctrl_c

# Each child process says "ready", and waits for signals only.
COMMAND = """
import signal
from fixtures.host.util.cli_main import run_cli
def work():
    try:
        print("ready", flush=True)
        while True:
            signal.pause()
    finally:
        print("cleaned up", flush=True)
raise SystemExit(run_cli(work, "", uses_cache=False))
"""

SLOW_CLEANUP = """
import signal
from fixtures.host.util.sigterm import handle_sigterm
handle_sigterm(same_request={same_request})
try:
    print("ready", flush=True)
    while True:
        signal.pause()
except KeyboardInterrupt:
    print("cleaning up", flush=True)
    input()
    print("cleaned up", flush=True)
"""

WORKER = """
import signal, sys
from fixtures.host.util.sigterm import leave_sigterm_to_parent
leave_sigterm_to_parent()
print("ready", flush=True)
print(sys.stdin.readline(), flush=True)
"""

TOX = f"""
import subprocess, sys, threading
import toxfile
done = threading.Event()
def command():
    with subprocess.Popen([sys.executable, "-c", {COMMAND!r}]) as process:
        process.wait()
    done.set()
# tox starts its commands in threads.
thread = threading.Thread(target=command)
thread.start()
try:
    while thread.is_alive():
        thread.join(1)
except KeyboardInterrupt:
    done.wait()
    print("tox has waited", flush=True)
"""


@contextmanager
def started(code: str) -> "Iterator[subprocess.Popen[str]]":
    """Run a Python program that ignores SIGINT, as a shell's background job; wait for "ready"."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            assert read_line(process) == "ready"
            process.send_signal(signal.SIGINT)
            assert process.poll() is None
            yield process
        finally:
            process.kill()


def read_line(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a program prints, without its end."""
    assert process.stdout
    return process.stdout.readline().strip()


def test_sigterm_raises_keyboard_interrupt_and_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_command_in_background_ends_at_sigterm_like_ctrl_c() -> None:
    with started(COMMAND) as process:
        process.terminate()
        assert read_line(process) == "cleaned up"
        assert process.wait() == 130


def test_second_sigterm_ends_process_at_once() -> None:
    with started(SLOW_CLEANUP.format(same_request=0.0)) as process:
        process.terminate()
        assert read_line(process) == "cleaning up"
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        assert read_line(process) == ""


def test_sigterm_to_process_and_then_to_its_group_is_one_request() -> None:
    with started(SLOW_CLEANUP.format(same_request=3600.0)) as process:
        process.terminate()
        assert read_line(process) == "cleaning up"
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate("go on\n")
        assert output.strip() == "cleaned up"
        assert process.returncode == 0


def test_worker_leaves_sigterm_to_its_parent() -> None:
    with started(WORKER) as process:
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate("next test")
        assert output.strip() == "next test"
        assert process.returncode == 0


def test_tox_passes_sigterm_to_its_command_and_waits_for_it() -> None:
    with started(TOX) as process:
        process.terminate()
        output, _ = process.communicate()
        assert output.splitlines() == ["cleaned up", "tox has waited"]
        assert process.returncode == 0
