# SPDX-License-Identifier: GPL-2.0-only
"""Aggregation of several runs by test, and by profile and kernel."""

from typing import Any

from fixtures.host.model.results import Run, Verdict
from fixtures.host.report.aggregate import columns, merge_tests
from tests.unit.host.report import run_samples


def test_worst_result_of_a_test_comes_first() -> None:
    verdicts = [Verdict.PASSED, Verdict.SKIPPED, Verdict.INFRA, Verdict.PANIC, Verdict.PASSED]
    runs = [
        run_samples.run(run_samples.result(verdict=one), started=f"{at}")
        for at, one in enumerate(verdicts)
    ]
    (test,) = merge_tests(runs)
    assert [found.verdict for _, found in test.results] == [
        Verdict.PANIC,
        Verdict.INFRA,
        Verdict.SKIPPED,
        Verdict.PASSED,
        Verdict.PASSED,
    ]
    assert test.verdicts == {"panic": 1, "infra": 1, "skipped": 1, "passed": 2}


def test_column_titles_name_profile_kernel_and_series() -> None:
    def kernel(series: str) -> dict[str, Any]:
        return {"series": {"sha256": series}}

    def titles(*runs: Run) -> list[tuple[str, int]]:
        return [(column.title, len(column.runs)) for column in columns(runs)]

    base, debug = run_samples.run(kernel=kernel("ab" * 32)), run_samples.run(profile="debug")
    newer = run_samples.run(kernel_release="7.4.0")
    other = run_samples.run(kernel=kernel("cd" * 32), started="later")
    assert titles(base, debug, base) == [("base", 2), ("debug", 1)]
    assert titles(base, newer) == [("base, 7.3.4-suite", 1), ("base, 7.4.0", 1)]
    assert titles(base, other) == [
        ("base, 7.3.4-suite, series abababababab", 1),
        ("base, 7.3.4-suite, series cdcdcdcdcdcd", 1),
    ]
