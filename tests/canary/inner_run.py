# SPDX-License-Identifier: GPL-2.0-only
"""Runs pytest on the faulty tests in a subprocess, with the command line that a user types."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FAULTY_TESTS = "tests/canary/faulty_tests"
"""Directory of the guest tests that fail on purpose, relative to `ROOT`."""


def inner_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the variables of the outer pytest and of tox.

    Args:
        variables: variables to add.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env.pop("TOX_ENV_NAME", None)
    return {**env, **variables}


def wait_until(condition: Callable[[], bool], description: str, timeout: float = 300.0) -> None:
    """Wait for a condition, at most ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{description}: not within {timeout:g} s"
        time.sleep(0.1)


def marked_processes(mark: str) -> list[str]:
    """Return the command lines of the processes whose environment contains a string."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # the process has exited
    return found


def pytest_command(report: Path, *options: str) -> list[str]:
    """Return the command line of an inner run.

    Args:
        report: directory for its report.
        options: further options and tests.
    """
    plugin = ("-p", "tests.canary.fault_plugin")
    return [sys.executable, "-m", "pytest", *plugin, f"--report={report}", *options]


def run_pytest(report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a subprocess until it ends, for at most 30 minutes.

    Args:
        report: directory for its report.
        options: further options and tests.
    """
    return subprocess.run(
        pytest_command(report, *options),
        cwd=ROOT,
        env=inner_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
