# SPDX-License-Identifier: GPL-2.0-only
"""Tests that a changed line affects, and their order."""

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.affected.affected_tests import Affected, affected_by, rank
from fixtures.host.affected.kernel_changes import FileChange
from fixtures.host.coverage.executed_lines import ExecutedLines, MeasuredFile
from fixtures.host.model.mutation_results import MutantResult, MutantStatus
from fixtures.host.mutation.kill_history import KillHistory
from fixtures.host.mutation.mutant import Mutant

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
"""
# Tests 0 and 1 execute add(); only test 1 line 7; test 2 executes del().
MEASURED = ExecutedLines(
    ("a", "b", "c"),
    {PATH: MeasuredFile(TEXT, {3: 0b011, 6: 0b011, 7: 0b010, 8: 0b011, 11: 0b100, 13: 0b100})},
)


def _affected(old: str, new: str, **more: object) -> Affected:
    change = FileChange(PATH, old, new)
    values: dict[str, object] = {"mutants": [], "kills": KillHistory([]), **more}
    return affected_by([change], MEASURED, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old_line", "new_line", "tests"),
    [
        ("\t\tfound = 1;", "\t\tfound = 2;", "b"),
        ("\tif (flow)", "\tif (!flow)", "ab"),
        ("\tint found = 0;", "\tint found = 3;", "ab"),
        ("\treturn flow;", "\tflow++;\n\treturn flow;", "c"),
        ("int timeout;", "long timeout;", "abc"),
    ],
    ids=["line", "condition", "declaration", "insertion", "outside-functions"],
)
def test_changed_line_affects_tests_that_execute_it(
    old_line: str, new_line: str, tests: str
) -> None:
    assert "".join(sorted(_affected(TEXT, TEXT.replace(old_line, new_line)).executed)) == tests


def test_lines_that_moved_since_the_measurement_are_found() -> None:
    moved = "/* A comment\n * of two lines. */\n" + TEXT
    assert [*_affected(moved, moved.replace("found = 1", "found = 2")).executed] == ["b"]


def test_line_that_was_not_measured_affects_its_function() -> None:
    old = TEXT.replace("found = 1;", "found = 7;")
    assert sorted(_affected(old, old.replace("found = 7", "found = 8")).executed) == ["a", "b"]


def test_unmeasured_file_is_named() -> None:
    change = FileChange("mm/slub.c", "a\n", "b\n")
    found = affected_by([change], MEASURED, [], KillHistory([]))
    assert found.unmeasured == ["mm/slub.c"]
    assert affected_by([change], None, [], KillHistory([])).unmeasured == ["mm/slub.c"]


def _mutant(folder: Path, name: str, clause: str, header: str) -> Mutant:
    """Return a mutant whose line numbers are out of date."""
    path = folder / name
    path.write_text(
        f"text\n---\n--- a/{PATH}\n+++ b/{PATH}\n@@ -99,2 +99,2 @@ {header}\n a\n-b\n+c\n"
    )
    return Mutant(path, "s", "", (clause,), "own", 2, "base", place=f"{PATH}:99")


def test_mutants_in_the_same_function_add_clauses_and_killers(tmp_path: Path) -> None:
    mutants = [
        _mutant(tmp_path, "inside", "SN-6", "int add(int flow)"),
        _mutant(tmp_path, "outside", "SN-7", "int del(int flow)"),
        replace(_mutant(tmp_path, "elsewhere", "SN-8", "int add(int flow)"), place="mm/slub.c:7"),
    ]
    kills = KillHistory([MutantResult("m", MutantStatus.KILLED, test="k", place=f"{PATH}:7")])
    new = TEXT.replace("found = 1", "found = 2")
    found = _affected(TEXT, new, mutants=mutants, kills=kills)
    assert found.clauses == {"SN-6"}
    assert found.killers == ["k"]


def test_order_is_own_then_killers_then_executed_then_clauses() -> None:
    affected = Affected(killers=["k"], clauses={"SN-6"})
    affected.executed.update(["two", "two", "one", "fast"])
    clauses = {
        "clause": ["SN-6.2", "SN-1.1"], "one": [], "two": [], "k": [], "own": [],
        "other": ["SN-1.1", "SN-60.1"], "fast": [],
    }  # fmt: skip
    order = rank(affected, {"own"}, clauses, {"one": 9.0, "fast": 1.0})
    assert order == ["own", "k", "two", "fast", "one", "clause"]


def test_each_function_has_its_turn_before_second_parameters() -> None:
    affected = Affected()
    tests = ["t[1]", "t[2]", "u[1]", "u[2]"]
    affected.executed.update({"t[1]": 9, "t[2]": 8, "u[1]": 2, "u[2]": 1})
    order = rank(affected, set(), dict.fromkeys(tests, ()), {})
    assert order == ["t[1]", "u[1]", "t[2]", "u[2]"]
