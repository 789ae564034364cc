# SPDX-License-Identifier: GPL-2.0-only
"""Mutation operators for C."""

import pytest

from fixtures.host.mutation.change import Change
from fixtures.host.mutation.operators import changes

SOURCE = b"""\
EXPORT_SYMBOL(f);
static int f(struct x *a, struct x *b)
{
	int n = 0;

	if (a == b)
		return -ENOENT;
	rcu_read_lock();
	n += 1;
	a->next = b;
	link(a, b);
	return n;
}
"""


def on(line: int) -> list[Change]:
    return list(changes(SOURCE, [line]))


def changed(line: int) -> set[tuple[str, str]]:
    return {
        (change.operator, change.apply(SOURCE).splitlines()[line - 1].decode().strip())
        for change in on(line)
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (4, {("constant", "int n = 1;")}),
        (6, {("relation", "if (a != b)")}),
        (7, {("errno", "return -EEXIST;")}),
        (8, {("drop-call", ";"), ("lock-later", "n += 1;")}),
        (9, {("drop-statement", ";"), ("constant", "n += 2;")}),
        (10, {("drop-statement", ";")}),
        (11, {("drop-call", ";"), ("swap", "link(b, a);")}),
        (12, set()),
    ],
)
def test_line_yields_expected_changes(line: int, expected: set[tuple[str, str]]) -> None:
    assert changed(line) == expected


@pytest.mark.parametrize("condition", ["a->dead", "!a", "a == b && !n"])
def test_compound_condition_is_negated(condition: str) -> None:
    source = SOURCE.replace(b"a == b", condition.encode())
    negated = [change for change in changes(source, [6]) if change.operator == "negate"]
    assert [change.apply(source).splitlines()[5].strip() for change in negated] == [
        f"if (!({condition}))".encode()
    ]


def test_change_has_name_of_its_function() -> None:
    assert {change.function for change in on(8)} == {"f"}
    pointer = SOURCE.replace(b"static int f(", b"static int *f(")
    assert {change.function for change in changes(pointer, [8])} == {"f"}


def test_code_outside_functions_is_not_changed() -> None:
    assert on(1) == []


@pytest.mark.parametrize("statement", ["BUILD_BUG_ON(1 != 2)", "lockdep_assert_held(&a->lock)"])
def test_assertions_are_not_changed(statement: str) -> None:
    source = SOURCE.replace(b"rcu_read_lock()", statement.encode())
    assert list(changes(source, [8])) == []


def test_memcmp_arguments_are_not_swapped() -> None:
    source = SOURCE.replace(b"link(a, b)", b"memcmp(a, b, n)")
    assert [change.operator for change in changes(source, [11])] == ["drop-call"]


def test_equal_changes_of_a_function_are_numbered() -> None:
    source = SOURCE.replace(b"rcu_read_lock();", b"f(1); f(1);")
    assert [change.description for change in changes(source, [8])] == [
        "without f(1)",
        "2 for 1 in f(1)",
        "without f(1) (2)",
        "2 for 1 in f(1) (2)",
    ]


def test_only_selected_lines_are_changed() -> None:
    assert {change.line for change in changes(SOURCE, [6, 8])} == {6, 8}
