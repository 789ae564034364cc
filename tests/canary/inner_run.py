# SPDX-License-Identifier: GPL-2.0-only
"""Runs the suite inside a test: the same command, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/canary/faulty_tests"
"""The folder with the guest tests that misbehave."""


def environment(**more: str) -> dict[str, str]:
    """Return this environment without what the outer pytest and tox put there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    kept.pop("TOX_ENV_NAME", None)
    return {**kept, **more}


def command(report: Path, *options: str) -> list[str]:
    """Return the command line of an inner run."""
    saboteur = ("-p", "tests.canary.fault_plugin")
    return [sys.executable, "-m", "pytest", *saboteur, f"--report={report}", *options]


def suite(report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the suite to its end.

    Args:
        report: folder for its report.
        options: further options and tests.
    """
    return subprocess.run(
        command(report, *options),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
