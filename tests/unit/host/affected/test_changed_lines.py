# SPDX-License-Identifier: GPL-2.0-only
"""Hunks, mapped lines and C functions of two versions of a file."""

from hypothesis import given
from hypothesis import strategies as st

from fixtures.host.affected.changed_lines import LineMap, function_at, functions, hunks

CODE = """\
#define TWICE(x) ((x) * 2)
struct flow {
	int mark;
};
static int flow_mark(const struct flow *flow);

static int
flow_mark(const struct flow *flow)
{
	return flow->mark;
}

int flow_set(struct flow *flow,
	int mark)
{
	if (mark) {
		flow->mark = mark;
		goto out;
	}
out:
	return 0;
}
static const struct ops ops = {
	.set = flow_set,
};
"""


def test_functions_have_their_lines_from_the_name_on() -> None:
    known = functions(CODE)
    assert {name: (lines[0], lines[-1]) for name, lines in known.items()} == {
        "flow_mark": (8, 11),
        "flow_set": (13, 22),
    }
    assert function_at(known, 17) == "flow_set"
    assert function_at(known, 24) == ""


def test_insertion_concerns_the_lines_around_it() -> None:
    (hunk,) = hunks("a\nb\nc\n", "a\nb\nx\nc\n")
    assert hunk.old_lines == [2, 3]
    assert hunk.new == 3


def test_replaced_lines_are_those_of_the_old_text() -> None:
    (hunk,) = hunks("a\nb\nc\nd\n", "a\nx\nd\n")
    assert hunk.old_lines == [2, 3]


LINES = st.lists(st.sampled_from("abcd"), max_size=8)


@given(LINES, LINES)
def test_mapped_lines_are_equal_and_in_order(old: list[str], new: list[str]) -> None:
    mapping = LineMap("".join(f"{x}\n" for x in old), "".join(f"{x}\n" for x in new))
    pairs = [(at, to) for at in range(1, len(old) + 1) if (to := mapping.get(at)) is not None]
    assert all(old[at - 1] == new[to - 1] for at, to in pairs)
    assert [to for _, to in pairs] == sorted({to for _, to in pairs})


def test_lines_after_an_insertion_move() -> None:
    mapping = LineMap("a\nb\nc\n", "a\nx\ny\nb\nc\n")
    assert [mapping.get(line) for line in (1, 2, 3)] == [1, 4, 5]
