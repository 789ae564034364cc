# SPDX-License-Identifier: GPL-2.0-only
"""xdist workers take the controller's context."""

import pytest

from fixtures.host.pytest_plugin.run_context import RunContext
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, Harness

pytest_plugins = ["pytester"]


class AsWorker:
    """Makes a pytest process look like an xdist worker."""

    def __init__(self, controller: RunContext) -> None:
        self._input = {"workerid": "gw1", "workercount": 2, "flowmap": controller.to_json()}
        self.reports: list[pytest.TestReport] = []

    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        early_config.workerinput = self._input  # type: ignore[attr-defined]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


def _run(pytester: pytest.Pytester, role: AsWorker) -> pytest.RunResult:
    return pytester.runpytest_inprocess(
        *PLUGINS, "selftests", plugins=[role], no_reraise_ctrlc=True
    )


def test_worker_runs_tests_and_writes_no_report(
    harness: Harness, pytester: pytest.Pytester
) -> None:
    role = AsWorker(harness.context)
    _run(pytester, role).assert_outcomes(passed=1, failed=1)
    assert harness.events == ["dies with its parent", "VMs killed"]
    assert not harness.context.report.exists()
    results = [
        report.flowmap_result for report in role.reports if hasattr(report, "flowmap_result")
    ]
    assert len(results) == 2
    assert '"worker": "gw1"' in results[0]
