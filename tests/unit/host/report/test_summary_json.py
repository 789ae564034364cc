# SPDX-License-Identifier: GPL-2.0-only
"""summary.json: round trip, sanitizing, and malformed files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.model.results import (
    Run,
    Verdict,
)
from fixtures.host.report import summary_json
from fixtures.host.util.errors import UserError
from tests.unit.host.report import run_samples


def test_summary_round_trips() -> None:
    run = summary_json.sanitize_run(run_samples.large(1))
    assert summary_json.parse(summary_json.render([run])) == [run]
    other = replace(run, info=run_samples.info(profile="debug", interrupted=True, notes=("a", "b")))
    assert summary_json.parse(summary_json.render([run, other])) == [run, other]


def test_order_of_results_does_not_matter() -> None:
    run = run_samples.large(2)
    backwards = Run(run.info, tuple(reversed(run.tests)))
    assert summary_json.render([run]) == summary_json.render([backwards])


def test_summary_has_verdict_counts_and_areas() -> None:
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


def test_sanitizing_cleans_and_bounds_texts_and_is_idempotent() -> None:
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
    tidied = summary_json.sanitize_run(run)
    failed, passed = tidied.tests
    assert failed.nodeid == "selftests/snoop/t.py::a\\nb"
    assert failed.message.startswith("\\xff")
    assert "left out here" in failed.message
    assert len(failed.message) < 70_000
    assert failed.seconds == 0.0
    assert (failed.console, passed.console) == ("kept", "")
    assert tidied.info.notes == ("\\x00",)
    assert tidied.info.kernel == {"config": ["a\\x07"], "3": "somewhere"}
    assert summary_json.sanitize_run(tidied) == tidied


def test_summary_counts_the_tests_of_each_sentence() -> None:
    tests = (
        run_samples.result("a.py::1", clauses=("SN-10.1", "SN-2.1")),
        run_samples.result("a.py::2", Verdict.HANG, clauses=("SN-2.1",)),
        run_samples.result("a.py::3", Verdict.SKIPPED, clauses=("SN-2.1",)),
    )
    values = json.loads(summary_json.render([run_samples.run(*tests)]))
    assert list(values["contract"].items()) == [
        ("SN-2.1", {"passed": 1, "failed": 1, "skipped": 1}),
        ("SN-10.1", {"passed": 1, "failed": 0, "skipped": 0}),
    ]


def test_unknown_fields_are_ignored() -> None:
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
    ids=[
        "truncated",
        "list",
        "no-fields",
        "later-version",
        "no-info",
        "no-profile",
        "number-as-profile",
    ],
)
def test_malformed_summary_is_refused_with_reason(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as caught:
        summary_json.read(tmp_path)
    assert "summary.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", "long"), ("clauses", [7]), ("phases", {"call": None}), ("sides", {"a": 1})],
    ids=["seconds", "clauses", "phases", "sides"],
)
def test_value_of_wrong_type_is_refused_with_field_name(name: str, value: Any) -> None:
    values = json.loads(summary_json.render([run_samples.run(run_samples.result())]))
    values["tests"][0][name] = value
    with pytest.raises(TypeError, match=f"^{name}: "):
        summary_json.parse(json.dumps(values))


def test_deeply_nested_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match="recursion"):
        summary_json.read(tmp_path)


def test_folder_without_summary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        summary_json.read(tmp_path)
