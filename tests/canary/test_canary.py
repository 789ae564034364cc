# SPDX-License-Identifier: GPL-2.0-only
"""Real misbehaviour in real machines, and what the suite makes of it.

One run of the suite over ``misbehave/`` in a process of its own; each test here looks
at one of its results: the verdict, whose it is, and that the run went on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/canary/misbehave"

# Test, verdict, and what the report must say of it.
VERDICTS = [
    ("test_kernel.py::test_panic", "panic", "lkdtm"),
    ("test_kernel.py::test_panic_by_sysrq", "panic", "sysrq"),
    ("test_kernel.py::test_bug", "splat", "kernel BUG at"),
    ("test_kernel.py::test_warning", "splat", "WARNING"),
    ("test_kernel.py::test_announced_warning", "passed", ""),
    ("test_kernel.py::test_announced_warning_that_does_not_come", "failed", "did not come"),
    ("test_kernel.py::test_hung_task", "hang", "blocked for more than"),
    ("test_kernel.py::test_hard_loop_on_every_cpu", "hang", "lkdtm_HARDLOCKUP"),
    ("test_kernel.py::test_powered_off", "lost", "powered off"),
    ("test_kernel.py::test_flood_of_the_console", "splat", "WARNING"),
    ("test_user_space.py::test_passes", "passed", ""),
    ("test_user_space.py::test_fails", "failed", "assert 1 == 2"),
    ("test_user_space.py::test_skips", "skipped", "the canary's reason"),
    ("test_user_space.py::test_xfails", "xfail", "the canary's expectation"),
    ("test_user_space.py::test_set_up_fails", "error", "the canary's set-up"),
    ("test_user_space.py::test_shared_set_up_fails", "error", "the canary's shared set-up"),
    ("test_user_space.py::test_loops_in_user_space", "failed", "test_loops_in_user_space"),
    ("test_user_space.py::test_dies", "failed", "signal 11"),
    ("test_user_space.py::test_kills_the_runner", "lost", ""),
    ("test_user_space.py::test_leaves_a_namespace_behind", "error", "canary"),
    ("test_user_space.py::test_qemu_is_killed", "lost", "SIGKILL"),
    ("test_user_space.py::test_worker_dies", "infra", "crashed"),
    ("test_user_space.py::test_shares_a_machine[1]", "passed", ""),
    ("test_user_space.py::test_shares_a_machine[2]", "passed", ""),
    ("test_user_space.py::test_sees_nothing_of_the_host", "passed", ""),
]


def suite(report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the suite over the misbehaving tests."""
    inner = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    inner.pop("TOX_ENV_NAME", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.canary.saboteur", *options,
         f"--report={report}"],
        cwd=ROOT, env=inner, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The results of one run over everything, by test."""
    report = tmp_path_factory.mktemp("report")
    done = suite(report, "-n", "2", "--dist", "loadfile", HERE)
    assert (report / "summary.json").exists(), done.stdout + done.stderr
    summary = json.loads((report / "summary.json").read_text())
    assert done.returncode == 1, done.stdout + done.stderr
    return {test["nodeid"].removeprefix(f"{HERE}/"): test for test in summary["tests"]}


@pytest.mark.parametrize(("test", "verdict", "says"), VERDICTS, ids=[v[0] for v in VERDICTS])
def test_verdict(results: dict[str, dict[str, Any]], test: str, verdict: str, says: str) -> None:
    result = results[test]
    told = result["message"] + result["splat"] + result["console"]
    assert result["verdict"] == verdict, told
    assert says in told


def test_nothing_is_missing(results: dict[str, dict[str, Any]]) -> None:
    """Every test has a result, whatever its neighbours did."""
    assert sorted(results) == sorted(test for test, _, _ in VERDICTS)
