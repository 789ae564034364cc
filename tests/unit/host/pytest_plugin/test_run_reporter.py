# SPDX-License-Identifier: GPL-2.0-only
"""Collection of test results in the controller."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.host.model.results import TestResult, Verdict
from fixtures.host.pytest_plugin.run_reporter import RunRecorder
from tests.unit.host.pytest_plugin.harness_fakes import make_context

NODEID = "selftests/snoop/test_a.py::test_b"


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    context = make_context(tmp_path)
    return RunRecorder(cast(pytest.Config, None), context, 1, datetime.now(UTC), time.monotonic())


def _report(when: Any = "call", longrepr: Any = None, **attributes: Any) -> pytest.TestReport:
    report = pytest.TestReport(NODEID, ("a.py", 1, "b"), {}, "passed", longrepr, when)
    for name, value in attributes.items():
        setattr(report, name, value)
    return report


def _result(verdict: Verdict = Verdict.PASSED) -> str:
    return json.dumps(
        asdict(TestResult(nodeid=NODEID, area="snoop", verdict=verdict, outcome="passed"))
    )


def test_report_with_result_is_recorded(recorder: RunRecorder) -> None:
    recorder.pytest_runtest_logreport(_report("setup"))
    assert recorder._results == {}
    recorder.pytest_runtest_logreport(_report(flowmap_result=_result()))
    assert recorder._results[NODEID].verdict is Verdict.PASSED


def test_report_of_crashed_worker_is_infra(recorder: RunRecorder) -> None:
    recorder.pytest_runtest_logreport(_report("???", "worker 'gw0' crashed"))
    result = recorder._results[NODEID]
    assert (result.verdict, result.outcome) == (Verdict.INFRA, "failed")
    assert "crashed" in result.message


def test_status_of_other_verdicts_is_left_to_pytest(recorder: RunRecorder) -> None:
    assert recorder.pytest_report_teststatus(_report()) is None
    assert recorder.pytest_report_teststatus(_report(flowmap_verdict="failed")) is None
    status = recorder.pytest_report_teststatus(_report(flowmap_verdict="hang"))
    assert status == ("failed", "H", "HANG")
