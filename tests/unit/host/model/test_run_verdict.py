# SPDX-License-Identifier: GPL-2.0-only
"""Verdict on one run or several."""

from dataclasses import replace

import pytest

from fixtures.host.model.results import (
    FAILED_VERDICTS,
    Verdict,
)
from fixtures.host.model.run_verdict import counts, failures, judge
from tests.unit.host.report import run_samples


def test_run_passes_if_all_tests_passed() -> None:
    judgement = judge(
        [run_samples.run(run_samples.result(), run_samples.result("selftests/snoop/t.py::skip"))]
    )
    assert judgement.ok
    assert judgement.sentence == "2 tests passed on 7.3.4-suite (base), none failed."


def test_skipped_tests_are_counted_in_the_sentence() -> None:
    run = run_samples.run(run_samples.result(), run_samples.result("a.py::b", Verdict.SKIPPED))
    assert judge([run]).sentence.endswith("none failed, 1 skipped.")


@pytest.mark.parametrize("verdict", FAILED_VERDICTS)
def test_one_failed_test_fails_the_run(verdict: Verdict) -> None:
    judgement = judge(
        [run_samples.run(run_samples.result(), run_samples.result("a.py::b", verdict))]
    )
    assert not judgement.ok
    assert judgement.sentence.startswith("1 failed test")
    assert (verdict is Verdict.FAILED) or f"1 {verdict.value}" in judgement.sentence


@pytest.mark.parametrize("verdict", [Verdict.SKIPPED, Verdict.XFAIL])
def test_run_without_a_passed_test_fails(verdict: Verdict) -> None:
    judgement = judge([run_samples.run(run_samples.result(verdict=verdict))])
    assert not judgement.ok
    assert "nothing proved" in judgement.sentence.lower()


def test_no_tests_and_no_runs_are_failures() -> None:
    assert not judge([run_samples.run()]).ok
    assert not judge([]).ok


def test_results_of_several_runs_are_counted() -> None:
    runs = [
        run_samples.run(run_samples.result()),
        run_samples.run(run_samples.result(verdict=Verdict.HANG), started="later"),
    ]
    where = "on 7.3.4-suite (base) in 2 runs."
    assert judge(runs).sentence == f"1 failed result (1 hang) out of 2 {where}"
    passed = f"2 results passed {where[:-1]}, none failed."
    assert judge([runs[0], replace(runs[1], tests=runs[0].tests)]).sentence == passed


def test_run_without_a_passed_test_fails_next_to_a_passed_run() -> None:
    good = run_samples.run(run_samples.result())
    empty = run_samples.run(profile="debug")
    judgement = judge([good, empty])
    assert not judgement.ok
    assert "(debug)" in judgement.sentence


def test_interrupted_run_fails() -> None:
    judgement = judge([run_samples.run(run_samples.result(), interrupted=True)])
    assert not judgement.ok
    assert judgement.sentence.startswith("Interrupted")
    both = judge([run_samples.run(run_samples.result(verdict=Verdict.HANG), interrupted=True)])
    assert "interrupted" in both.sentence
    assert "1 hang" in both.sentence


def test_most_severe_failure_comes_first() -> None:
    tests = [
        run_samples.result(f"a.py::{at}", verdict)
        for at, verdict in enumerate([Verdict.INFRA, Verdict.FAILED, Verdict.PANIC])
    ]
    found = [test.verdict for _, test in failures([run_samples.run(*tests)])]
    assert found == [Verdict.PANIC, Verdict.FAILED, Verdict.INFRA]


def test_counts_have_every_outcome() -> None:
    assert counts([]) == {"passed": 0, "failed": 0, "skipped": 0}
