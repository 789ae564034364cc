# SPDX-License-Identifier: GPL-2.0-only
"""Test order on a mutant."""

from typing import Any

import pytest

from fixtures.host.pytest_plugin.mutant_test_order import sort_tests


class Item:
    """The part of a test that the order depends on."""

    def __init__(self, name: str, *clauses: str) -> None:
        self.name = name
        self.nodeid = f"selftests/test_it.py::{name}"
        self._clauses = clauses

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        assert name == "clause"
        return [pytest.mark.clause(*self._clauses).mark]


def order(clauses: list[str], *items: Any, run_first: list[str] | None = None) -> list[str]:
    items_list = list(items)
    sort_tests(items_list, clauses, [f"selftests/test_it.py::{name}" for name in run_first or []])
    return [item.name for item in items_list]


def test_tests_of_broken_clause_come_first_fewest_clauses_first() -> None:
    got = order(
        ["FM-4"],
        Item("other", "MM-1"),
        Item("wide", "FM-4", "SN-2", "MM-1"),
        Item("another", "FM-44"),
        Item("narrow", "FM-4"),
    )
    assert got == ["narrow", "wide", "other", "another"]


def test_first_parameter_set_of_each_function_comes_first() -> None:
    items = [Item(f"test_{name}[{case}]", "FM-1") for name in "ab" for case in (1, 2)]
    assert order(["FM-1"], *items) == ["test_a[1]", "test_b[1]", "test_a[2]", "test_b[2]"]


def test_clause_group_matches_its_clauses() -> None:
    assert order(["SN"], Item("a", "FM-1"), Item("b", "SN-3")) == ["b", "a"]


def test_clause_matches_its_sentences() -> None:
    items = [Item("a", "SN-1.1"), Item("b", "SN-3.2"), Item("c", "SN-30.2")]
    assert order(["SN-3"], *items) == ["b", "a", "c"]


def test_run_first_precedes_other_tests_of_broken_clauses() -> None:
    items = [Item("a", "SN-1"), Item("b", "SN-3"), Item("c", "FM-1"), Item("d", "FM-1")]
    assert order(["SN-1", "SN-3"], *items, run_first=["d", "b", "gone"]) == ["b", "a", "d", "c"]


def test_run_first_precedes_all_tests_if_clauses_are_guessed() -> None:
    items = [Item("a", "SN-1"), Item("b", "SN-3"), Item("c", "FM-1"), Item("d", "FM-1")]
    assert order(["SN"], *items, run_first=["d", "b", "gone"]) == ["d", "b", "a", "c"]


def test_other_parameter_sets_of_likeliest_test_follow_run_first() -> None:
    items = [Item(name, "FM-1") for name in ("a", "b[1]", "b[2]", "c[1]", "c[2]")]
    got = order(["FM-1"], *items, run_first=["c[2]", "b[2]"])
    assert got == ["c[2]", "b[2]", "c[1]", "a", "b[1]"]
