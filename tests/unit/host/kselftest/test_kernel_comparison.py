# SPDX-License-Identifier: GPL-2.0-only
"""Comparison of two kernels: a difference fails, a failure on both kernels is an xfail."""

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.kselftest.ab_runner import ABRunner
from fixtures.host.kselftest.kernel_comparison import compare_kernels
from fixtures.host.model.results import TestResult, Verdict
from fixtures.host.report import html_report, markdown_summary, summary_json
from tests.unit.host.report import run_samples

NODEID = "selftests/upstream/test_netfilter.py::test_script[nft_nat.sh]"


def side(verdict: Verdict, output: str = "", message: str = "") -> TestResult:
    """Return a script's result on one kernel."""
    return run_samples.result(NODEID, verdict, stdout=output, message=message)


PASSED = side(Verdict.PASSED, "PASS: one\nPASS: two\n")


@pytest.mark.parametrize(
    ("patched", "unpatched", "verdict", "first_line"),
    [
        (PASSED, PASSED, Verdict.PASSED, ""),
        (
            side(Verdict.SKIPPED, message="no iptables"),
            side(Verdict.SKIPPED, message="no iptables"),
            Verdict.SKIPPED,
            "no iptables",
        ),
        (
            side(Verdict.PASSED, "SKIP wildcard tests: not supported by host's nft?\n"),
            side(Verdict.PASSED, "SKIP wildcard tests: not supported by host's nft?\n"),
            Verdict.SKIPPED,
            "all cases skipped: wildcard tests: not supported by host's nft?",
        ),
        (
            side(Verdict.FAILED, "FAIL: one\n", "exit status 1"),
            side(Verdict.FAILED, "FAIL: one\n", "exit status 1"),
            Verdict.XFAIL,
            "fails on both kernels: exit status 1",
        ),
        (
            side(Verdict.FAILED, "FAIL: one\nPASS: two\n", "exit status 1"),
            PASSED,
            Verdict.FAILED,
            "the kernels differ: failed patched, passed unpatched",
        ),
        # A pass only with the series is a difference, too: the series must not change results.
        (
            PASSED,
            side(Verdict.FAILED, "FAIL: one\nPASS: two\n", "exit status 1"),
            Verdict.FAILED,
            "the kernels differ: passed patched, failed unpatched",
        ),
        (
            side(Verdict.FAILED, "FAIL: one\nPASS: two\n", "exit status 1"),
            side(Verdict.FAILED, "PASS: one\nFAIL: two\n", "exit status 1"),
            Verdict.FAILED,
            "the kernels differ: failed patched only: one",
        ),
        (
            side(Verdict.PASSED, "PASS: one\nSKIP: two\n"),
            PASSED,
            Verdict.FAILED,
            "the kernels differ: skipped patched only: two",
        ),
        (
            side(Verdict.PASSED, "PASS: one\n"),
            PASSED,
            Verdict.FAILED,
            "the kernels differ: 1 cases passed patched, 2 unpatched",
        ),
        (
            side(Verdict.SPLAT, message="the kernel complains"),
            PASSED,
            Verdict.FAILED,
            "the kernels differ: splat patched, passed unpatched",
        ),
        (
            side(Verdict.INFRA, message="no machine"),
            side(Verdict.INFRA, message="no machine"),
            Verdict.INFRA,
            "no result from the patched and the unpatched kernel",
        ),
        (
            PASSED,
            side(Verdict.LOST, message="QEMU was killed"),
            Verdict.INFRA,
            "no result from the unpatched kernel",
        ),
    ],
)
def test_verdict_depends_on_difference(
    patched: TestResult, unpatched: TestResult, verdict: Verdict, first_line: str
) -> None:
    result = compare_kernels(patched, unpatched)
    assert result.verdict is verdict
    assert result.message.partition("\n")[0] == first_line
    assert set(result.sides) == {"patched", "unpatched"}


def test_difference_message_has_both_results() -> None:
    result = compare_kernels(side(Verdict.FAILED, "FAIL: one\n", "exit status 1"), PASSED)
    assert "patched: failed: exit status 1 (1 failed)" in result.message
    assert "unpatched: passed (2 passed)" in result.message


class FakeRunner:
    """A runner with a fixed result."""

    def __init__(self, result: TestResult) -> None:
        self._result = result
        self.closed = False

    def run(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Return a report with the result."""
        report = pytest.TestReport(item.nodeid, item.location, {}, "passed", None, "call")
        report.flowmap_result = json.dumps(asdict(self._result))  # type: ignore[attr-defined]
        return [report]

    def close(self) -> None:
        """Record that the runner is closed."""
        self.closed = True


@pytest.mark.parametrize(
    ("unpatched", "outcome"),
    [
        (PASSED, "passed"),
        (side(Verdict.FAILED, "FAIL: one\nPASS: two\n", "exit status 1"), "failed"),
    ],
)
def test_ab_runner_returns_one_report(unpatched: TestResult, outcome: str) -> None:
    item = SimpleNamespace(nodeid=NODEID, location=("test_netfilter.py", 3, "test_script"))
    runners = FakeRunner(PASSED), FakeRunner(unpatched)
    runner = ABRunner(*runners)
    (report,) = runner.run(cast(pytest.Item, item))
    assert report.outcome == outcome
    carried: Any = json.loads(report.flowmap_result)
    assert TestResult.from_json(carried) == compare_kernels(PASSED, unpatched)
    runner.close()
    assert all(each.closed for each in runners)


def test_reports_show_both_kernels() -> None:
    run = run_samples.run(
        compare_kernels(side(Verdict.FAILED, "FAIL: one\n", "exit status 1"), PASSED)
    )
    (again,) = summary_json.parse(summary_json.render([summary_json.sanitize_run(run)]))
    assert again.tests[0].sides == run.tests[0].sides
    assert (
        "<td>failed: exit status 1 (1 failed)</td><td>passed (2 passed)</td>"
        in html_report.render([run], [])
    )
    assert (
        "| failed: exit status 1 (1 failed) | passed (2 passed) | failed |"
        in markdown_summary.render([run], [])
    )


def test_run_on_one_kernel_has_no_comparison_table() -> None:
    run = run_samples.run(run_samples.result())
    assert "kernel by kernel" not in html_report.render([run], [])
    assert "unpatched" not in markdown_summary.render([run], [])
