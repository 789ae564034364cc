# SPDX-License-Identifier: GPL-2.0-only
"""Records of a run: validation, areas, and JSON."""

from typing import Any

import pytest

from fixtures.host.model.results import (
    FAILED_VERDICTS,
    Run,
    Verdict,
    area_of,
    outcome_of,
)
from tests.unit.host.report import run_samples


def test_every_failed_verdict_has_a_severity() -> None:
    assert set(FAILED_VERDICTS) == {
        verdict for verdict in Verdict if outcome_of(verdict) == "failed"
    }
    assert len(FAILED_VERDICTS) == len(set(FAILED_VERDICTS))


@pytest.mark.parametrize(
    ("nodeid", "area"),
    [
        ("selftests/races/test_a.py::test_b", "races"),
        ("selftests/modular_map/deep/test_a.py::T::test_b", "modular_map"),
        ("tests/canary/test_a.py::test_b[snoop/x]", "other"),
        ("lookup.py::test_b", "other"),
    ],
    ids=["folder", "subfolder", "parameter", "file"],
)
def test_area_is_derived_from_the_folder(nodeid: str, area: str) -> None:
    assert area_of(nodeid) == area


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "passed", "verdict": Verdict.PANIC},
        {"outcome": "skipped", "verdict": Verdict.PASSED},
        {"outcome": "skipped", "verdict": Verdict.XPASS},
        {"area": "elsewhere"},
    ],
    ids=["panic-passed", "passed-skipped", "xpass-skipped", "unknown-area"],
)
def test_inconsistent_result_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="test_shown"):
        run_samples.result(**wrong)


def test_xpass_may_count_as_passed_or_failed() -> None:
    for outcome in ("passed", "failed"):
        assert run_samples.result(verdict=Verdict.XPASS, outcome=outcome).outcome == outcome


def test_runs_of_the_same_inputs_differ_in_times_only() -> None:
    first = run_samples.run(
        run_samples.result(worker="gw0", phases={"call": 1.0}), started="2026-01-01"
    )
    second = run_samples.run(
        run_samples.result(worker="gw1", seconds=9.0), started="2026-01-02", seconds=3.0
    )
    assert first != second
    assert first.without_times() == second.without_times()


def test_time_is_split_by_guest_cpu_waiting_and_harness() -> None:
    phases = {"restore": 0.5, "begin": 0.1, "setup": 0.2, "call": 1.0, "teardown": 0.1, "cpu": 0.9}
    spent = run_samples.result(seconds=2.0, phases=phases).time_breakdown
    assert spent == pytest.approx({"guest CPU": 0.9, "waiting": 0.4, "harness": 0.7})
    assert run_samples.result(phases={"restore": 0.5}).time_breakdown == {}


def test_repetitions_round_trip_through_json() -> None:
    run = run_samples.run(run_samples.soaked((60.5, 20, 19)))
    assert Run.from_json(run.to_json()) == run
    values = run.to_json()
    values["tests"][0]["history"][0]["rounds"] = "many"
    with pytest.raises(TypeError, match="rounds"):
        Run.from_json(values)
