# SPDX-License-Identifier: GPL-2.0-only
"""Gaps between contract clauses and tests that stop a run."""

from fixtures.host.model.contract_clauses import parse
from fixtures.host.pytest_plugin.clause_coverage import find_gaps

CONTRACT = parse("""
## FM: the map
- **FM-1** Creation.
- **FM-2** Cost. Open: nothing
  measures it.
- **FM-3** Builds.
  Proved by: `make`.
""")
FIRST = {"selftests/a.py::t": ["FM-1"]}


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
