# SPDX-License-Identifier: GPL-2.0-only
"""Changes that a program makes in C."""

import pytest

from fixtures.host.mutants.operators import Change, changes

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
        (6, {("negate", "if (!(a == b))"), ("relation", "if (a != b)")}),
        (7, {("errno", "return -EEXIST;")}),
        (8, {("drop-call", ";")}),
        (9, {("drop-statement", ";"), ("constant", "n += 2;")}),
        (10, {("drop-statement", ";")}),
        (11, {("drop-call", ";"), ("swap", "link(b, a);")}),
        (12, set()),
    ],
)
def test_changes_of_a_line(line: int, expected: set[tuple[str, str]]) -> None:
    got = {(op, text.replace("(!(a == b))", "(!(a == b))")) for op, text in changed(line)}
    assert got == expected


def test_outside_of_functions_nothing_is_changed() -> None:
    assert on(1) == []


def test_only_wanted_lines_are_changed() -> None:
    assert {change.line for change in changes(SOURCE, [6, 8])} == {6, 8}
