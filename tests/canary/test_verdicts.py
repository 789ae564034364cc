# SPDX-License-Identifier: GPL-2.0-only
"""Real misbehaviour in real machines, and what the suite makes of it.

One run of the suite over ``misbehave/`` in a process of its own; each test here looks
at one of its results: the verdict, whose it is, and that the run went on.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.canary.inner_run import HERE, suite

# Test, verdict, and what the report must say of it.
VERDICTS = [
    ("test_kernel.py::test_panic", "panic", "lkdtm"),
    ("test_kernel.py::test_panic_by_sysrq", "panic", "sysrq"),
    ("test_kernel.py::test_bug", "splat", "kernel BUG at"),
    ("test_kernel.py::test_warning", "splat", "WARNING"),
    ("test_kernel.py::test_announced_warning", "passed", ""),
    ("test_kernel.py::test_announced_warning_that_does_not_come", "failed", "did not come"),
    ("test_kernel.py::test_hung_task", "hang", "blocked for more than"),
    ("test_kernel.py::test_bug_and_then_a_task_that_hangs", "splat", "kernel BUG at"),
    # The NMI shows the CPU that takes it: one that loops, or one that was waiting for that.
    (
        "test_kernel.py::test_hard_loop_on_every_cpu",
        "hang",
        "lkdtm_HARDLOCKUP|smp_call_function_many_cond",
    ),
    ("test_kernel.py::test_powered_off", "lost", "powered off"),
    ("test_kernel.py::test_flood_of_the_console", "splat", "WARNING"),
    ("test_user_space.py::test_passes", "passed", ""),
    ("test_user_space.py::test_fails", "failed", "assert 1 == 2"),
    ("test_user_space.py::test_chance_decides", "failed", "drew 0x"),
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
    ("test_user_space.py::test_is_unlucky", "passed", ""),
    ("test_user_space.py::test_sees_nothing_of_the_host", "passed", ""),
]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The results of one run over everything, by test.

    ``--dist load`` gives a test that ended its worker to no other worker.
    """
    report = tmp_path_factory.mktemp("report")
    done = suite(report, "-n", "2", "--dist", "load", "-k", "not shares", HERE)
    assert (report / "summary.json").exists(), done.stdout + done.stderr
    summary = json.loads((report / "summary.json").read_text())
    assert done.returncode == 1, done.stdout + done.stderr
    return {test["nodeid"].removeprefix(f"{HERE}/"): test for test in summary["tests"]}


@pytest.mark.parametrize(("test", "verdict", "says"), VERDICTS, ids=[v[0] for v in VERDICTS])
def test_verdict(results: dict[str, dict[str, Any]], test: str, verdict: str, says: str) -> None:
    result = results[test]
    told = result["message"] + result["splat"] + result["console"]
    assert result["verdict"] == verdict, told
    assert re.search(says, told)


def test_nothing_is_missing(results: dict[str, dict[str, Any]]) -> None:
    """Every test has a result, whatever its neighbours did."""
    assert sorted(results) == sorted(test for test, _, _ in VERDICTS)


def test_replay_command_repeats_what_chance_did(
    results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """RT-4: what the report prints is enough to have the same random choices again."""
    first = results["test_user_space.py::test_chance_decides"]
    _, _, options = first["replay"].partition(" -- ")
    suite(tmp_path, *shlex.split(options))
    (again,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert again["seed"] == first["seed"]
    assert again["message"] == first["message"]


def test_shared_machine(tmp_path: Path) -> None:
    """Tests that allow it share one machine, in one worker."""
    done = suite(tmp_path, "-k", "shares", HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [test["layer"] for test in summary["tests"]] == ["S2", "S2 (shared)"]


def test_what_was_collected_is_found_again(tmp_path: Path) -> None:
    """A run whose tests are those of the last one delivers the kernel's modules only."""
    for _ in range(2):
        done = suite(tmp_path, "-k", "test_passes", HERE)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "delivering the tests" not in done.stderr


def test_campaign(tmp_path: Path) -> None:
    """It ends with the first failure, whose seed and effort the command on record has."""
    done = suite(tmp_path, "--campaign", "5", "-k", "unlucky", HERE)
    assert done.returncode == 1, done.stdout + done.stderr
    (test,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert test["verdict"] == "failed"
    assert f"--seed {test['seed']} --campaign 1" in test["replay"]

    *options, _ = shlex.split(test["replay"].partition(" -- ")[2])
    again = suite(tmp_path, *options, "-k", "unlucky", HERE)
    assert again.returncode == 1, again.stdout + again.stderr
    (first,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert (first["seed"], first["repetitions"]) == (test["seed"], 1)


def test_without_snapshots(tmp_path: Path) -> None:
    """The same tests by booting, with the same results."""
    done = suite(tmp_path, "--no-snapshots", "-k", "test_passes or test_fails", HERE)
    assert done.returncode == 1, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    got = {test["nodeid"].rpartition("::")[2]: test["verdict"] for test in summary["tests"]}
    assert got == {"test_passes": "passed", "test_fails": "failed"}
    assert {test["layer"] for test in summary["tests"]} == {"boot"}
