# SPDX-License-Identifier: GPL-2.0-only
"""kcidb.json is valid for kcidb-io, whatever the guest reports."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.exceptions import ValidationError
from kcidb_io.schema import LATEST

from fixtures.host.model.results import Run, TestResult, Verdict
from fixtures.host.report import kcidb, summary_json
from tests.unit.host.report import run_samples

_text = st.one_of(
    st.text(st.characters(codec=None), max_size=20),
    st.sampled_from(["\0", "a.b/c d", "[x]", "", "2026-01-01", "9999-12-31T23:59:59-23:59"]),
)


def _values(*runs: Run) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(
        kcidb.render([summary_json.sanitize_run(run) for run in runs])
    )
    LATEST.validate(values)
    return values


@settings(max_examples=60)
@given(st.lists(st.tuples(_text, st.sampled_from(Verdict), _text), max_size=4), _text, _text)
def test_any_run_gives_a_valid_file(
    tests: list[tuple[str, Verdict, str]], text: str, when: str
) -> None:
    results = [
        run_samples.result(
            f"selftests/snoop/{name}.py::{name}{at}", verdict, message=message * 2000
        )
        for at, (name, verdict, message) in enumerate(tests)
    ]
    kernel = {"key": text, "series": {"patches": [{"sha256": text}, text]}, "tools": text}
    _values(
        run_samples.run(*results, profile=text, kernel_release=text, started=when, kernel=kernel)
    )


def test_validator_refuses_an_invalid_status() -> None:
    values = _values(run_samples.run(run_samples.result()))
    values["tests"][0]["status"] = "passed"
    with pytest.raises(ValidationError):
        LATEST.validate(values)


def test_values_match_the_report() -> None:
    values = _values(
        run_samples.run(
            run_samples.result(
                "selftests/lookup/test_a.py::test_x[v4 a]", clauses=("FM-4",), seed=7
            ),
            run_samples.result(
                "selftests/races/test_b.py::test_y", Verdict.SPLAT, splat=run_samples.SPLAT
            ),
        )
    )
    (checkout,), (build,) = values["checkouts"], values["builds"]
    assert checkout["comment"] == "debian 7.3.4-1, patched by Debian, v7.3, 1 patch"
    assert checkout["patchset_hash"] == hashlib.sha256(b"ef" * 32 + b"\n").hexdigest()
    assert (build["checkout_id"], build["compiler"]) == (checkout["id"], "gcc 12.2.0")
    first, second = values["tests"]
    assert first["path"] == "flowmap.lookup.test_a.test_x"
    assert first["comment"] == "selftests/lookup/test_a.py::test_x[v4 a]"
    assert (first["status"], first["misc"]["seed"]) == ("PASS", 7)
    assert first["build_id"] == build["id"]
    assert second["status"] == "FAIL"
    assert "flowmap_lookup" in second["log_excerpt"]


@pytest.mark.parametrize("verdict", Verdict)
def test_only_passed_tests_have_status_pass(verdict: Verdict) -> None:
    test: TestResult = run_samples.result(verdict=verdict)
    (found,) = _values(run_samples.run(test))["tests"]
    words = {"passed": {"PASS"}, "skipped": {"SKIP"}, "failed": {"FAIL", "ERROR", "MISS"}}
    assert found["status"] in words[test.outcome]


def test_runs_of_a_kernel_share_the_build_and_test_ids_are_unique() -> None:
    tests = [run_samples.result(f"a.py::{at}") for at in range(3)]
    again = run_samples.run(*tests, started="2026-01-02T10:00:00Z", kernel={"key": "k1"})
    other = run_samples.run(*tests, profile="debug", kernel={"key": "k2"})
    values = _values(run_samples.run(*tests, kernel={"key": "k1"}), again, other)
    assert len(values["builds"]) == 2
    ids = [test["id"] for test in values["tests"]]
    assert len(set(ids)) == len(ids) == 9
