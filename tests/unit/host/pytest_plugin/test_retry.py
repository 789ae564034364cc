# SPDX-License-Identifier: GPL-2.0-only
"""A retry classifies a failure and never turns it into a pass."""

from collections.abc import Iterator

import pytest

from fixtures.host.model.results import FAILED_VERDICTS, TestResult, Verdict
from fixtures.host.pytest_plugin.retry import classify
from tests.unit.host.report import run_samples


def _results(*verdicts: Verdict) -> Iterator[TestResult]:
    return (run_samples.result(verdict=verdict, message=f"E   {verdict}") for verdict in verdicts)


@pytest.mark.parametrize("verdict", [Verdict.PANIC, Verdict.FAILED, Verdict.ERROR, Verdict.HANG])
def test_failure_that_passes_once_is_flaky_and_keeps_its_message(verdict: Verdict) -> None:
    (first,) = _results(verdict)
    again = _results(verdict, Verdict.PASSED)
    result = classify(first, lambda: next(again), 5)
    assert (result.verdict, result.outcome) == (Verdict.FLAKY, "failed")
    assert f"{verdict}, and passed" in result.message
    assert "repetition 2" in result.message
    assert result.message.endswith(f"E   {verdict}")
    assert list(again) == []


def test_failure_that_fails_each_time_keeps_its_verdict() -> None:
    (first,) = _results(Verdict.FAILED)
    again = _results(Verdict.PANIC, Verdict.SKIPPED)
    assert classify(first, lambda: next(again), 2) is first
    assert list(again) == []


@pytest.mark.parametrize("verdict", [Verdict.PASSED, Verdict.SKIPPED, Verdict.INFRA, Verdict.XPASS])
def test_other_verdicts_are_not_retried(verdict: Verdict) -> None:
    (first,) = _results(verdict)
    assert classify(first, lambda: pytest.fail("repeated"), 3) is first


def test_without_retries_nothing_is_repeated() -> None:
    (first,) = _results(Verdict.FAILED)
    assert classify(first, lambda: pytest.fail("repeated"), 0) is first


def test_flaky_is_a_failed_verdict() -> None:
    assert Verdict.FLAKY in FAILED_VERDICTS
