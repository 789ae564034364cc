# SPDX-License-Identifier: GPL-2.0-only
"""Which holes in the matrix stop a run."""

from fixtures.host.model.contract_clauses import parse
from fixtures.host.pytest_plugin.clause_coverage import find_holes

CONTRACT = parse("""
## FM: the map
- **FM-1** Creation.
- **FM-2** Cost. Open: nothing
  measures it.
- **FM-3** Builds.
  Proved by: `make`.
""")
FIRST = {"selftests/a.py::t": ["FM-1"]}


def test_clause_without_a_test_is_a_hole_unless_it_says_why() -> None:
    assert find_holes(FIRST, CONTRACT) == []
    (hole,) = find_holes({}, CONTRACT)
    assert "FM-1" in hole


def test_test_without_a_clause_is_a_hole() -> None:
    (hole,) = find_holes(FIRST | {"selftests/b.py::t": []}, CONTRACT)
    assert hole.startswith("selftests/b.py::t: no clause")


def test_canary_needs_no_clause() -> None:
    assert find_holes(FIRST | {"tests/canary/c.py::t": []}, CONTRACT) == []


def test_clause_that_is_in_no_contract_is_a_hole() -> None:
    (hole,) = find_holes({"selftests/a.py::t": ["FM-1", "FM-9"]}, CONTRACT)
    assert "no clause FM-9" in hole
