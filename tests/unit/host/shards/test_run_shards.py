# SPDX-License-Identifier: GPL-2.0-only
"""A run that is spread over fake machines: merged report, lost machines, Ctrl-C."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.host.machines.machine import Job, MachineLostError
from fixtures.host.model.results import Run, RunInfo, TestResult, Verdict, outcome_of
from fixtures.host.report import summary_json
from fixtures.host.shards import cli
from fixtures.host.util.errors import UserError

TESTS = [f"selftests/lookup/test_{file}.py::test_{n}" for file in "ab" for n in range(2)]
Work = Callable[[Job, Path, threading.Event], int]


@dataclass
class FakeMachine:
    """Runs a function in place of a job."""

    name: str
    work: Work

    def run(self, job: Job, folder: Path, stop: threading.Event) -> int:
        folder.mkdir(parents=True)
        return self.work(job, folder, stop)


def write_report(
    folder: Path, tests: Iterable[str], verdict: Verdict = Verdict.PASSED, interrupted: bool = False
) -> None:
    """Write the summary of a run."""
    results = tuple(
        TestResult(nodeid=test, area="lookup", verdict=verdict, outcome=outcome_of(verdict))
        for test in tests
    )
    info = RunInfo(
        profile="base",
        kernel_release="7.3.4",
        started=f"2026-12-01T00:00:00+00:00 {folder.name}",
        interrupted=interrupted,
    )
    (folder / summary_json.NAME).write_text(summary_json.render([Run(info, results)]))


def good(job: Job, folder: Path, _: threading.Event) -> int:
    """Run all tests of a job."""
    write_report(folder, job.tests)
    return 0


def _summary(folder: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((folder / summary_json.NAME).read_text()))


def _verdicts(folder: Path) -> dict[str, str]:
    runs = _summary(folder)
    tests = [test for run in runs.get("runs", [runs]) for test in run["tests"]]
    assert len(tests) == len({test["nodeid"] for test in tests})
    return {test["nodeid"]: test["verdict"] for test in tests}


@pytest.fixture(autouse=True)
def no_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a cache without a run history."""
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))


def _run(folder: Path, *machines: FakeMachine) -> int:
    return cli.run_shards(machines, TESTS, ["-n", "1"], folder, history=True)


def test_two_machines_give_one_report_with_each_test_once(tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert _run(report, FakeMachine("a", good), FakeMachine("b", good)) == 0
    assert _verdicts(report) == dict.fromkeys(TESTS, "passed")
    assert (report / "report.html").exists()
    assert set(cli.recorded_seconds("base")) == set()  # no duration was recorded above


def test_tests_of_a_lost_machine_are_run_by_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = threading.Barrier(2, timeout=60)
    jobs: list[Job] = []

    def lose(*_: object) -> int:
        both.wait()
        raise MachineLostError("b: connection reset")

    def work(job: Job, folder: Path, stop: threading.Event) -> int:
        if not jobs:
            both.wait()
        jobs.append(job)
        return good(job, folder, stop)

    report = tmp_path / "report"
    assert _run(report, FakeMachine("a", work), FakeMachine("b", lose)) == 0
    assert len(jobs) == 2
    assert _verdicts(report) == dict.fromkeys(TESTS, "passed")
    assert "without a result: b: connection reset" in capsys.readouterr().err


def test_only_tests_without_a_result_are_run_again(tmp_path: Path) -> None:
    jobs: list[int] = []

    def stop_first(job: Job, folder: Path, stop: threading.Event) -> int:
        jobs.append(len(job.tests))
        if len(jobs) > 1:
            return good(job, folder, stop)
        write_report(folder, job.tests[:1], interrupted=True)
        return 2

    report = tmp_path / "report"
    assert _run(report, FakeMachine("a", stop_first)) == 0
    assert _verdicts(report) == dict.fromkeys(TESTS, "passed")
    assert jobs == [4, 3]


def test_without_any_machine_tests_are_infra(tmp_path: Path) -> None:
    def lose(*_: object) -> int:
        raise MachineLostError("a: no route to host")

    report = tmp_path / "report"
    assert _run(report, FakeMachine("a", lose)) == 1
    assert _verdicts(report) == dict.fromkeys(TESTS, "infra")
    (message,) = {test["message"] for test in _summary(report)["tests"]}
    assert message == "no machine has run it: a: no route to host"


def test_failed_test_is_a_result_and_is_not_run_again(tmp_path: Path) -> None:
    jobs = []

    def fail(job: Job, folder: Path, _: threading.Event) -> int:
        jobs.append(job)
        write_report(folder, job.tests, Verdict.FAILED)
        return 1

    report = tmp_path / "report"
    assert _run(report, FakeMachine("a", fail), FakeMachine("b", fail)) == 1
    assert _verdicts(report) == dict.fromkeys(TESTS, "failed")
    assert len(jobs) == 2


def test_ctrl_c_leaves_a_report_of_what_ran(tmp_path: Path) -> None:
    def work(job: Job, folder: Path, stop: threading.Event) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(60)
        write_report(folder, job.tests[:1], interrupted=True)
        return 2

    report = tmp_path / "report"
    with pytest.raises(KeyboardInterrupt):
        _run(report, FakeMachine("a", work))
    assert len(_verdicts(report)) == 1
    assert _summary(report)["info"]["interrupted"]


@pytest.mark.parametrize("option", ["-x", "--maxfail=1", "--soak", "--affected"])
def test_option_that_needs_one_machine_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--machine", "a", option]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option}: not with several machines")


def test_arguments_that_select_tests_are_not_passed_on() -> None:
    given = ["-k", "udp or tcp", "-n", "1", "selftests/lookup", "--clause", "SN-1", "--seed=3"]
    assert cli.without_selection(given) == ["-n", "1", "--seed=3"]


def test_unknown_test_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"^pytest selects no tests: no test$"):
        cli.collect_tests([])


@pytest.mark.parametrize("quiet", [[], ["-q"], ["-v"]], ids=["plain", "quiet", "verbose"])
def test_tests_are_collected_one_id_a_line(quiet: list[str]) -> None:
    tests = cli.collect_tests([*quiet, "tests/unit/test_lint_commands.py"])
    assert tests[0].startswith("tests/unit/test_lint_commands.py::test_")
    assert len(tests) == 2
