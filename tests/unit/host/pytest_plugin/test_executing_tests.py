# SPDX-License-Identifier: GPL-2.0-only
"""``--executing-only``: from a mutant's patch and measured lines to the tests that run."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.coverage.executed_lines import ExecutedLines, MeasuredFile
from fixtures.host.kernel.sources import resolver
from fixtures.host.pytest_plugin import executing_tests
from tests.unit.host.pytest_plugin.harness_fakes import make_context

SOURCE = "net/netfilter/x.c"
LINES = ["int add(void)", "{", "\treturn 1;", "}", "", "int del(void)", "{", "\treturn 2;", "}"]
TEXT = "\n".join(LINES) + "\n"
MUTANT = f"""\
Subject: del() returns 3

Clause: SN-6
Kind: own
Patch: 1
Profile: base
---
--- a/{SOURCE}
+++ b/{SOURCE}
@@ -6,4 +6,4 @@ int add(void)
 int del(void)
 {{
-\treturn 2;
+\treturn 3;
 }}
"""
ADDS, DELETES, NEW = "t::adds", "t::deletes", "t::is_new"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose series adds one file with two functions, and a mutant of one."""
    folder = tmp_path / "project"
    series = folder / "patches/v7.3"
    series.mkdir(parents=True)
    (series / "series").write_text("0001-x.patch\n")
    added = "".join(f"+{line}\n" for line in LINES)
    hunk = f"@@ -0,0 +1,{len(LINES)} @@\n"
    new_file = f"diff --git a/{SOURCE} b/{SOURCE}\nnew file mode 100644\n"
    (series / "0001-x.patch").write_text(f"{new_file}--- /dev/null\n+++ b/{SOURCE}\n{hunk}{added}")
    (series / "bug.patch").write_text(MUTANT)
    tree = tmp_path / "tree"
    tree.mkdir()
    source = SimpleNamespace(fetch=lambda _progress: SimpleNamespace(folder=tree))
    monkeypatch.setattr(resolver, "resolve_source", lambda *_: source)
    monkeypatch.setattr(executing_tests, "from_namespace", lambda _option: None)
    monkeypatch.setattr(executing_tests, "ROOT", folder)
    monkeypatch.setattr(executing_tests, "_COVERAGE", folder / "coverage")
    (folder / "coverage").mkdir()
    return folder


def _run(project: Path) -> tuple[list[str], list[str]]:
    """Return the ids of the tests that run on the mutant, and of those that are deselected."""
    items = [cast(pytest.Item, SimpleNamespace(nodeid=name)) for name in (ADDS, DELETES, NEW)]
    deselected: list[pytest.Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config = cast(pytest.Config, SimpleNamespace(option=None, hook=hook))
    patch = project / "patches/v7.3/bug.patch"
    executing_tests.deselect_others(config, make_context(project), items, patch)
    return [item.nodeid for item in items], [item.nodeid for item in deselected]


def _measure(project: Path, text: str) -> None:
    lines = {1: 0b01, 3: 0b01, 6: 0b10, 8: 0b10}
    files = {SOURCE: MeasuredFile(text, lines)}
    ExecutedLines((ADDS, DELETES), files).write(project / "coverage")


def test_tests_that_do_not_execute_the_mutant_are_deselected(project: Path) -> None:
    """Tests that were not measured run, too."""
    _measure(project, TEXT)
    assert _run(project) == ([DELETES, NEW], [ADDS])


def test_all_tests_run_without_valid_measurement(project: Path) -> None:
    """Nothing was measured, or another version of the function."""
    everything: tuple[list[str], list[str]] = ([ADDS, DELETES, NEW], [])
    assert _run(project) == everything
    _measure(project, TEXT.replace("return 2", "return 4"))
    assert _run(project) == everything
