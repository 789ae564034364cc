# SPDX-License-Identifier: GPL-2.0-only
"""Mutation operators that confuse values of one type, or leave out a case or a condition."""

import pytest

from fixtures.host.mutation.change import Change
from fixtures.host.mutation.operators import changes

HEADER = b"""\
enum step { FIRST, SECOND, THIRD, STEP_MAX };
struct inner { u8 src[4]; u8 dst[4]; u32 only; };
struct tuple {
	union {
		u32 src_v4;
		u64 src_v6;
	};
	union {
		u32 dst_v4;
		u64 dst_v6;
	};
	struct inner *outer;
	struct inner hash[2];
	struct {
		u16 id;
		u16 proto;
	} encap[2];
	u8 dir;
};
"""
FRAME = """\
static int f(struct tuple *t, struct tuple *other, int n, u32 m)
{
	struct inner in;
	%s
	return n;
}
"""


def made(statement: str, *operators: str) -> set[str]:
    """Return the statement after each change that one of some operators makes of it."""
    source = (FRAME % statement).encode()
    lines = range(4, 4 + statement.count("\n") + 1)
    return {
        _statement(change, source, statement)
        for change in changes(source, lines, [HEADER])
        if change.operator in operators
    }


def _statement(change: Change, source: bytes, statement: str) -> str:
    start = source.index(statement.encode())
    after = change.apply(source).decode()
    return after[start : len(after) - len(source) + start + len(statement)]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("n = t->src_v4;", {"n = t->dst_v4;"}),
        ("n = t->dst_v6;", {"n = t->src_v6;"}),
        ("n = in.src[0];", {"n = in.dst[0];"}),
        ("n = t->outer->dst[1];", {"n = t->outer->src[1];"}),
        ("n = t->encap[n].id;", {"n = t->encap[n].proto;"}),
        ("n = (*t).src_v4;", {"n = (*t).dst_v4;"}),
        ("n = t->outer->only;", set()),
        ("n = unknown->src_v4;", set()),
        ("n = get(t)->src_v4;", set()),
    ],
)
def test_member_is_replaced_by_next_of_same_type(statement: str, expected: set[str]) -> None:
    assert made(statement, "member") == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("g(n, m);", {"g(m, n);"}),
        ("g(t, other);", {"g(other, t);"}),
        ("g(t, n);", set()),
        ("g(in, n);", set()),
        ("g(t, MACRO);", set()),
    ],
)
def test_arguments_are_swapped_if_their_types_allow_it(statement: str, expected: set[str]) -> None:
    assert made(statement, "swap") == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("n = FIRST;", {"n = SECOND;"}),
        ("n = THIRD;", {"n = FIRST;"}),
        ("n = STEP_MAX;", set()),
        ("n = NFPROTO_IPV6;", {"n = NFPROTO_IPV4;"}),
        ("n = IPPROTO_TCP;", {"n = IPPROTO_UDP;"}),
        ("switch (n) {\n\tcase FIRST:\n\t\tbreak;\n\t}", set()),
    ],
)
def test_enumerator_is_replaced_by_other_of_its_enum(statement: str, expected: set[str]) -> None:
    assert made(statement, "enumerator") == expected


def test_case_is_left_out() -> None:
    source = "switch (n) {\n\tcase FIRST:\n\tcase SECOND:\n\t\tg(n);\n\t\tbreak;\n\t}"
    assert made(source, "case") == {
        "switch (n) {\n\tcase FIRST:\n\tcase SECOND:\n\t\tbreak;\n\t}",
    }


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("g(t->hash[t->dir]);", "g(t->hash[!t->dir]);"),
        ("g(t->hash[!t->dir]);", "g(t->hash[t->dir]);"),
    ],
)
def test_element_of_other_direction_is_taken(statement: str, expected: str) -> None:
    assert made(statement, "direction") == {expected}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a && b && c", {"b && c", "a && c", "a && b"}),
        ("a || b", {"a", "b"}),
        ("t && t->dir", {"t"}),
        ("!t || t->dir", {"!t"}),
        ("a + b", set()),
    ],
)
def test_operand_of_condition_is_left_out(condition: str, expected: set[str]) -> None:
    assert made(f"if ({condition})\n\t\tn = 0;", "widen", "narrow") == {
        f"if ({kept})\n\t\tn = 0;" for kept in expected
    }


def test_counting_loop_ends_after_first_round() -> None:
    assert made("for (n = 0; n < MANY; n++)\n\t\tg(n);", "first-only") == {
        "for (n = 0; n < 1; n++)\n\t\tg(n);"
    }


def test_descriptions_of_one_function_are_unique() -> None:
    source = (FRAME % "n = t->src_v4 + t->src_v4;").encode()
    described = [change.description for change in changes(source, [4], [HEADER])]
    assert len(described) == len(set(described))
