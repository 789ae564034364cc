# SPDX-License-Identifier: GPL-2.0-only
"""Failures and verdict on the terminal."""

import io
from pathlib import Path

from rich.console import Console

from fixtures.host.model.results import Verdict
from fixtures.host.report.terminal_summary import print_summary, verdict_line
from tests.unit.host.report import run_samples


def test_verdict_is_one_line() -> None:
    run = run_samples.run(run_samples.result(message="irrelevant"))
    assert verdict_line([run], Path("build/report/report.html")) == (
        "PASSED: 1 test passed on 7.3.4-suite (base), none failed."
        " [tcg, 1 min 32 s] build/report/report.html"
    )


def test_terminal_lists_failures_before_the_verdict() -> None:
    tests = [
        run_samples.result(f"a.py::test_{at:02}[x]", Verdict.PANIC, message="E   [bold]not markup")
        for at in range(25)
    ]
    out = io.StringIO()
    print_summary([run_samples.run(*tests)], Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    assert len(lines) == 22
    assert lines[0] == " panic a.py::test_00[x]: [bold]not markup"
    assert lines[20].strip() == "and 5 more"
    assert lines[21].startswith("FAILED: 25 failed tests (25 panic) out of 25")
