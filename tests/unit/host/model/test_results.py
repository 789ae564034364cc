# SPDX-License-Identifier: GPL-2.0-only
"""The records, summary.json, and the verdict on a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.model.results import BAD, Run, Verdict, area_of, outcome_of
from fixtures.host.model.run_verdict import counts, failures, judge
from fixtures.host.report import summary_json
from fixtures.host.util.errors import UserError
from tests.unit.host.report import run_samples


def test_every_verdict_that_fails_a_test_has_a_rank() -> None:
    assert set(BAD) == {verdict for verdict in Verdict if outcome_of(verdict) == "failed"}
    assert len(BAD) == len(set(BAD))


@pytest.mark.parametrize(
    ("nodeid", "area"),
    [
        ("selftests/races/test_a.py::test_b", "races"),
        ("selftests/modular_map/deep/test_a.py::T::test_b", "modular_map"),
        ("tests/canary/test_a.py::test_b[snoop/x]", "other"),
        ("lookup.py::test_b", "other"),
    ],
)
def test_area_is_read_off_the_folder(nodeid: str, area: str) -> None:
    assert area_of(nodeid) == area


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "passed", "verdict": Verdict.PANIC},
        {"outcome": "skipped", "verdict": Verdict.PASSED},
        {"outcome": "skipped", "verdict": Verdict.XPASS},
        {"area": "elsewhere"},
    ],
)
def test_what_cannot_be_counted_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="test_shown"):
        run_samples.result(**wrong)


def test_xpass_may_count_either_way() -> None:
    for outcome in ("passed", "failed"):
        assert run_samples.result(verdict=Verdict.XPASS, outcome=outcome).outcome == outcome


def test_summary_gives_back_what_went_in() -> None:
    run = summary_json.tidy(run_samples.large(1))
    assert summary_json.parse(summary_json.render([run])) == [run]
    other = replace(run, info=run_samples.info(profile="debug", interrupted=True, notes=("a", "b")))
    assert summary_json.parse(summary_json.render([run, other])) == [run, other]


def test_order_of_arrival_does_not_matter() -> None:
    run = run_samples.large(2)
    backwards = Run(run.info, tuple(reversed(run.tests)))
    assert summary_json.render([run]) == summary_json.render([backwards])


def test_summary_says_what_readers_look_for() -> None:
    tests = (
        run_samples.result("selftests/lookup/t.py::a"),
        run_samples.result("selftests/lookup/t.py::b"),
    )
    values = json.loads(summary_json.render([run_samples.run(*tests)]))
    assert values["schema_version"] == 1
    assert values["verdict"] == "passed"
    assert values["counts"] == {"passed": 2, "failed": 0, "skipped": 0}
    assert values["areas"] == {"lookup": {"passed": 2, "failed": 0, "skipped": 0}}
    assert values["info"]["accel"] == "tcg"
    assert [test["verdict"] for test in values["tests"]] == ["passed", "passed"]


def test_two_runs_of_the_same_inputs_differ_only_in_times() -> None:
    first = run_samples.run(
        run_samples.result(worker="gw0", phases={"call": 1.0}), started="2026-01-01"
    )
    second = run_samples.run(
        run_samples.result(worker="gw1", seconds=9.0), started="2026-01-02", seconds=3.0
    )
    assert first != second
    assert first.without_times() == second.without_times()


def test_time_is_split_into_what_it_was_spent_on() -> None:
    phases = {"restore": 0.5, "begin": 0.1, "setup": 0.2, "call": 1.0, "teardown": 0.1, "cpu": 0.9}
    spent = run_samples.result(seconds=2.0, phases=phases).spent
    assert spent == pytest.approx({"guest CPU": 0.9, "waiting": 0.4, "harness": 0.7})
    assert run_samples.result(phases={"restore": 0.5}).spent == {}


def test_tidy_cleans_bounds_and_settles() -> None:
    run = run_samples.run(
        run_samples.result(
            "selftests/snoop/t.py::a\nb\x1b[31m",
            Verdict.FAILED,
            message="\udcff" + "x" * 300_000,
            seconds=float("nan"),
            console="kept",
        ),
        run_samples.result(console="not kept"),
        notes=("\0",),
        kernel={"config": ["a\x07"], 3: Path("somewhere")},
    )
    tidied = summary_json.tidy(run)
    failed, passed = tidied.tests
    assert failed.nodeid == "selftests/snoop/t.py::a\\nb"
    assert failed.message.startswith("\\xff")
    assert "left out here" in failed.message
    assert len(failed.message) < 70_000
    assert failed.seconds == 0.0
    assert (failed.console, passed.console) == ("kept", "")
    assert tidied.info.notes == ("\\x00",)
    assert tidied.info.kernel == {"config": ["a\\x07"], "3": "somewhere"}
    assert summary_json.tidy(tidied) == tidied


def test_fields_of_a_later_version_are_left_aside() -> None:
    run = run_samples.run(run_samples.result())
    values = json.loads(summary_json.render([run]))
    values["info"]["moon"] = "full"
    values["tests"][0]["mood"] = "good"
    assert summary_json.parse(json.dumps(values)) == [run]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ("{}", "no field 'schema_version'"),
        ('{"schema_version": 99}', "schema_version is 99, not 1"),
        ('{"schema_version": 1}', "no field 'info'"),
        ('{"schema_version": 1, "info": {}, "tests": []}', "profile"),
        ('{"schema_version": 1, "info": {"profile": 7}, "tests": []}', "profile: int is not"),
    ],
)
def test_what_is_no_summary_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as caught:
        summary_json.read(tmp_path)
    assert "summary.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", "long"), ("clauses", [7]), ("phases", {"call": None}), ("sides", {"a": 1})],
)
def test_a_value_of_another_type_is_refused_by_its_field(name: str, value: Any) -> None:
    values = json.loads(summary_json.render([run_samples.run(run_samples.result())]))
    values["tests"][0][name] = value
    with pytest.raises(TypeError, match=f"^{name}: "):
        summary_json.parse(json.dumps(values))


def test_values_nested_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match="recursion"):
        summary_json.read(tmp_path)


def test_a_folder_without_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        summary_json.read(tmp_path)


def test_a_run_in_which_all_passed_has_passed() -> None:
    judgement = judge(
        [run_samples.run(run_samples.result(), run_samples.result("selftests/snoop/t.py::skip"))]
    )
    assert judgement.ok
    assert judgement.sentence == "2 tests passed on 7.3.4-suite (base), none failed."


def test_skips_are_told_beside_passes() -> None:
    run = run_samples.run(run_samples.result(), run_samples.result("a.py::b", Verdict.SKIPPED))
    assert judge([run]).sentence.endswith("none failed, 1 skipped.")


@pytest.mark.parametrize("verdict", BAD)
def test_one_bad_test_fails_the_run(verdict: Verdict) -> None:
    judgement = judge(
        [run_samples.run(run_samples.result(), run_samples.result("a.py::b", verdict))]
    )
    assert not judgement.ok
    assert judgement.sentence.startswith("1 failed test")
    assert (verdict is Verdict.FAILED) or f"1 {verdict.value}" in judgement.sentence


@pytest.mark.parametrize("verdict", [Verdict.SKIPPED, Verdict.XFAIL])
def test_a_run_that_proved_nothing_has_failed(verdict: Verdict) -> None:
    judgement = judge([run_samples.run(run_samples.result(verdict=verdict))])
    assert not judgement.ok
    assert "nothing proved" in judgement.sentence.lower()


def test_no_tests_and_no_runs_are_failures() -> None:
    assert not judge([run_samples.run()]).ok
    assert not judge([]).ok


def test_of_several_runs_results_are_counted() -> None:
    runs = [
        run_samples.run(run_samples.result()),
        run_samples.run(run_samples.result(verdict=Verdict.HANG), started="later"),
    ]
    where = "on 7.3.4-suite (base) in 2 runs."
    assert judge(runs).sentence == f"1 failed result (1 hang) out of 2 {where}"
    passed = f"2 results passed {where[:-1]}, none failed."
    assert judge([runs[0], replace(runs[1], tests=runs[0].tests)]).sentence == passed


def test_one_run_that_proved_nothing_is_not_hidden_by_another() -> None:
    good = run_samples.run(run_samples.result())
    empty = run_samples.run(profile="debug")
    judgement = judge([good, empty])
    assert not judgement.ok
    assert "(debug)" in judgement.sentence


def test_an_interrupted_run_has_failed() -> None:
    judgement = judge([run_samples.run(run_samples.result(), interrupted=True)])
    assert not judgement.ok
    assert judgement.sentence.startswith("Interrupted")
    both = judge([run_samples.run(run_samples.result(verdict=Verdict.HANG), interrupted=True)])
    assert "interrupted" in both.sentence
    assert "1 hang" in both.sentence


def test_the_gravest_failure_comes_first() -> None:
    tests = [
        run_samples.result(f"a.py::{at}", verdict)
        for at, verdict in enumerate([Verdict.INFRA, Verdict.FAILED, Verdict.PANIC])
    ]
    found = [test.verdict for _, test in failures([run_samples.run(*tests)])]
    assert found == [Verdict.PANIC, Verdict.FAILED, Verdict.INFRA]


def test_counts_name_every_outcome() -> None:
    assert counts([]) == {"passed": 0, "failed": 0, "skipped": 0}
