# SPDX-License-Identifier: GPL-2.0-only
"""Gaps between the contract and the tests that stop a run."""

import ast
from collections.abc import Iterator

import pytest

from fixtures.host.model.contract_clauses import parse
from fixtures.host.pytest_plugin.clause_coverage import find_gaps
from fixtures.host.util.paths import ROOT
from tests.unit.host.report import run_samples

CONTRACT = parse("""
## FM: the map
- **FM-1** Creation.
- **FM-2** Cost. Open: nothing
  measures it.
- **FM-3** Builds.
  Proved by: `make`.
""")
FIRST = {"selftests/a.py::t": ["FM-1"]}
NUMBERED = parse(run_samples.NUMBERED_CONTRACT)


def test_clause_without_test_is_gap_unless_excused() -> None:
    assert find_gaps(FIRST, CONTRACT) == []
    (gap,) = find_gaps({}, CONTRACT)
    assert "FM-1" in gap


def test_test_without_clause_is_gap() -> None:
    (gap,) = find_gaps(FIRST | {"selftests/b.py::t": []}, CONTRACT)
    assert gap.startswith("selftests/b.py::t: no clause")


def test_canary_needs_no_clause() -> None:
    assert find_gaps(FIRST | {"tests/canary/c.py::t": []}, CONTRACT) == []


def test_unknown_clause_is_gap() -> None:
    (gap,) = find_gaps({"selftests/a.py::t": ["FM-1", "FM-9"]}, CONTRACT)
    assert "no clause FM-9" in gap


@pytest.mark.parametrize(
    ("names", "gap"),
    [
        (["FM-1.1", "FM-1.2", "FM-3"], ""),
        (["FM-1.1", "FM-3"], "docs/contract.md: sentence FM-1.2 has no test"),
        (["FM-1.1", "FM-1.2"], "docs/contract.md: sentence FM-3 has no test"),
        (["FM-1.1", "FM-1.2", "FM-3", "FM-2"],
         "selftests/a.py::t: clause FM-2 has numbered sentences: name those"),
        (["FM-1.1", "FM-1.2", "FM-1.3", "FM-3"], "selftests/a.py::t: no clause FM-1.3"),
        (["FM-1.1", "FM-1.2", "FM-3", "FM-3.1"], "selftests/a.py::t: no clause FM-3.1"),
    ],
    ids=["none", "sentence", "whole-clause", "clause-named", "unknown", "sentence-of-whole"],
)  # fmt: skip
def test_tests_name_sentences_and_not_clauses(names: list[str], gap: str) -> None:
    found = find_gaps({"selftests/a.py::t": names}, NUMBERED)
    assert len(found) == bool(gap)
    assert not gap or found[0].startswith(gap)


def _markers() -> Iterator[tuple[str, list[str]]]:
    """Yield each test file of the suite with the ids of its markers, without importing it."""
    for path in sorted(ROOT.glob("selftests/*/test_*.py")):
        yield (
            path.relative_to(ROOT).as_posix(),
            [
                str(argument.value)
                for call in ast.walk(ast.parse(path.read_bytes()))
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.clause"
                for argument in call.args
                if isinstance(argument, ast.Constant)
            ],
        )


def test_each_sentence_of_the_contract_has_a_test_of_the_suite() -> None:
    assert find_gaps(dict(_markers())) == []
