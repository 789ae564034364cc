# SPDX-License-Identifier: GPL-2.0-only
"""Tests that need not run on a mutant, from the lines that each test executes."""

import pytest

from fixtures.host.affected.kernel_changes import FileChange
from fixtures.host.affected.mutant_tests import not_executing
from fixtures.host.coverage.executed_lines import ExecutedLines, MeasuredFile

PATH = "net/netfilter/snoop.c"
TEXT = """\
int timeout;

int add(int flow)
{
	int found = 0;
	if (flow)
		found = 1;
	return found;
}

int del(int flow)
{
	return flow;
}

int never(void)
{
	return 1;
}
"""
# Tests 0 and 1 execute add(); only test 1 line 7; test 2 executes del(); none executes never().
LINES = {3: 0b0011, 6: 0b0011, 7: 0b0010, 8: 0b0011, 11: 0b0100, 13: 0b0100, 16: 0, 18: 0}


def _skipped(old: str, new: str, *, text: str = TEXT, path: str = PATH) -> str:
    measured = ExecutedLines(("p", "q", "r", "s"), {PATH: MeasuredFile(text, LINES)})
    return "".join(sorted(not_executing([FileChange(path, old, new)], measured)))


@pytest.mark.parametrize(
    ("old_line", "new_line", "skipped"),
    [
        # All tests that execute the function run, not only those that execute the line.
        ("\t\tfound = 1;\n", "\t\tfound = 2;\n", "rs"),
        ("\treturn found;\n", "", "rs"),
        ("\treturn flow;\n", "\tflow++;\n\treturn flow;\n", "pqs"),
        # Nothing is known of what is outside of functions, nor of what no test executes.
        ("int timeout;\n", "long timeout;\n", ""),
        ("\treturn 1;\n", "\treturn 2;\n", ""),
        ("int del(", "int new(void)\n{\n\treturn 0;\n}\n\nint del(", ""),
    ],
)
def test_tests_of_changed_function_are_not_skipped(
    old_line: str, new_line: str, skipped: str
) -> None:
    """The tests that execute a changed function run, the other measured ones do not."""
    assert TEXT.count(old_line) == 1
    assert _skipped(TEXT, TEXT.replace(old_line, new_line)) == skipped


def test_change_of_two_functions_skips_tests_of_neither() -> None:
    """A mutant of two functions runs the tests of both."""
    new = TEXT.replace("found = 1", "found = 2").replace("return flow", "return !flow")
    assert _skipped(TEXT, new) == "s"


def test_no_test_is_skipped_without_a_valid_measurement() -> None:
    """Another text of the function, or another file, makes the measurement invalid."""
    new = TEXT.replace("found = 1", "found = 2")
    assert _skipped(TEXT, new, text=TEXT.replace("found = 0", "found = 3")) == ""
    assert _skipped(TEXT, new, path="net/netfilter/other.c") == ""
    # What has changed in other functions since does not matter.
    other = TEXT.replace("return 1;", "int one = 1;\n\treturn one;")
    assert _skipped(other, other.replace("found = 1", "found = 2")) == "rs"
