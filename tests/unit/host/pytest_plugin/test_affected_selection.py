# SPDX-License-Identifier: GPL-2.0-only
"""``--affected`` from an edited patch to the ordered tests: the series' own files and mutants."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.affected import kernel_changes
from fixtures.host.affected.changed_lines import functions
from fixtures.host.coverage.executed_lines import ExecutedLines, MeasuredFile
from fixtures.host.kernel.sources import resolver
from fixtures.host.pytest_plugin import affected_mode
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT
from tests.unit.host.pytest_plugin.harness_fakes import make_context

SERIES = "patches/v7.3"
MODULE = "net/netfilter/nf_flow_table_bpf_flowmap.c"
LOOKUPS = [f"selftests/lookup/test_hit.py::test_value[{n}]" for n in range(400)]
CREATIONS = [f"selftests/creation/test_attributes.py::test_refused[{n}]" for n in range(600)]
SNOOPS = [f"selftests/snoop/test_teardown.py::test_flow_is_gone[{n}]" for n in range(100)]
TESTS = [*LOOKUPS, *CREATIONS, *SNOOPS]
CLAUSES: dict[str, list[str]] = {
    **{test: ["FM-3"] for test in LOOKUPS},
    **{test: ["FM-1"] for test in CREATIONS},
    **{test: ["SN-6"] for test in SNOOPS},
}

Select = Callable[[], list[str]]


def _new_files(patch: str) -> str:
    """Return the part of a patch that adds files: it applies to an empty tree."""
    parts = re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE)
    return "".join(part for part in parts if "\nnew file mode" in part[:200])


def _git(folder: Path, *args: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with the new files of the series and its mutants, committed."""
    folder = tmp_path / "project"
    series = folder / SERIES
    series.mkdir(parents=True)
    patches = sorted((ROOT / SERIES).glob("000[45]-*.patch"))
    (series / "series").write_text("".join(f"{path.name}\n" for path in patches))
    for path in patches:
        (series / path.name).write_text(_new_files(path.read_text()).rstrip("\n") + "\n")
    shutil.copytree(ROOT / SERIES / "mutants", series / "mutants")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/contract.md", folder / "docs")
    (folder / ".gitignore").write_text("/build/\n")
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def module(project: Path) -> str:
    """Return the text of the module that the series adds."""
    (patch,) = (project / SERIES).glob("0005-*.patch")
    part = patch.read_text().partition(f"+++ b/{MODULE}\n")[2].partition("\ndiff ")[0]
    return "".join(line[1:] + "\n" for line in part.splitlines()[1:] if line.startswith("+"))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that are printed."""
    lines: list[str] = []
    monkeypatch.setattr(affected_mode, "log", lines.append)
    return lines


@pytest.fixture
def select(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Select:
    """Return the selection with ``--affected``, for all `TESTS`."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for module in (affected_mode, kernel_changes):
        monkeypatch.setattr(module, "ROOT", project)
    monkeypatch.setattr(affected_mode, "CONTRACT", project / "docs/contract.md")
    monkeypatch.setattr(affected_mode, "_COVERAGE", project / "build/coverage")
    source = SimpleNamespace(fetch=lambda _progress: SimpleNamespace(folder=tree))
    monkeypatch.setattr(resolver, "resolve_source", lambda *_: source)
    options = SimpleNamespace(tree=None, image=None, tarball=None)
    monkeypatch.setattr(affected_mode, "from_namespace", lambda _option: options)
    config = cast(
        pytest.Config, SimpleNamespace(option=None, getoption={"since": "HEAD"}.__getitem__)
    )
    context = replace(make_context(tmp_path), profile="base")
    return lambda: affected_mode.select(config, context, CLAUSES)


def _measure(project: Path, module: str, tests_by_function: Mapping[str, Sequence[str]]) -> None:
    """Write measured lines: each test executes every line of its functions."""
    lines: dict[int, int] = {}
    for function, tests in tests_by_function.items():
        mask = sum(1 << TESTS.index(test) for test in tests)
        lines |= dict.fromkeys(functions(module)[function], mask)
    folder = project / "build/coverage"
    folder.mkdir(parents=True)
    # Renamed tests and other files are there, too.
    files = {MODULE: MeasuredFile(module, lines), "net/netfilter/x.c": MeasuredFile("a\n", {1: 1})}
    ExecutedLines(tuple(TESTS), files).write(folder)


def _edit(project: Path, old: str, new: str) -> None:
    """Replace a line that the series adds."""
    (patch,) = (project / SERIES).glob("0005-*.patch")
    text = patch.read_text()
    assert text.count(f"\n+{old}\n") == 1
    patch.write_text(text.replace(f"\n+{old}\n", f"\n+{new}\n"))


MACS = "\tflowmap_set_macs(value, source, dest);"


def _macs_function(module: str) -> str:
    number = module.split("\n").index(MACS) + 1
    return next(name for name, lines in functions(module).items() if number in lines)


def test_tests_that_execute_the_edited_line_come_before_those_of_its_clauses(
    project: Path, module: str, select: Select, logged: list[str]
) -> None:
    _measure(project, module, {_macs_function(module): SNOOPS[:3] + LOOKUPS[:7]})
    _edit(project, MACS, "\tflowmap_set_macs(value, dest, source);")
    tests = select()
    assert set(tests) >= {*SNOOPS[:3], *LOOKUPS[:7]}
    # Mutants in this function break clauses of the value, none of creation or of snoop tables.
    assert not set(tests) & {*CREATIONS, *SNOOPS[3:]}
    assert tests[0] in {*SNOOPS[:3], *LOOKUPS[:7]}
    (line,) = logged
    assert line.startswith(f"{len(tests)} tests affected by 2 changed files since HEAD; first ")


def test_edit_outside_of_measured_lines_selects_by_function(
    project: Path, module: str, select: Select
) -> None:
    name = _macs_function(module)
    other = next(each for each in functions(module) if each != name)
    _measure(project, module, {name: LOOKUPS[:1], other: SNOOPS[:1]})
    _edit(project, MACS, f"\tvalue->generation++;\n+{MACS}")
    (patch,) = (project / SERIES).glob("0005-*.patch")
    # A valid hunk has one line more.
    count = len(module.splitlines())
    text = patch.read_text().replace(f"@@ -0,0 +1,{count} @@", f"@@ -0,0 +1,{count + 1} @@")
    patch.write_text(text)
    tests = select()
    assert LOOKUPS[0] in tests
    assert SNOOPS[0] not in tests


def test_without_measured_lines_one_line_says_what_to_do(
    project: Path, select: Select, logged: list[str]
) -> None:
    _edit(project, MACS, "\tflowmap_set_macs(value, dest, source);")
    assert select()  # the tests of the clauses of nearby mutants
    assert len(logged) == 2
    assert logged[0].endswith(
        "only tests of nearby mutants are selected: run `tox -e coverage` once"
    )
    assert "\n" not in logged[0]


def test_without_measured_lines_and_mutants_the_remedy_is_to_measure(
    project: Path, select: Select
) -> None:
    shutil.rmtree(project / SERIES / "mutants")
    _git(project, "commit", "-qam", "without mutants")
    _edit(project, MACS, "\tflowmap_set_macs(value, dest, source);")
    with pytest.raises(UserError, match="run `tox -e coverage` first") as error:
        select()
    assert "\n" not in str(error.value)


def test_tests_that_are_newer_than_the_measurement_are_counted(
    project: Path, module: str, select: Select, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _measure(project, module, {_macs_function(module): LOOKUPS[:1]})
    monkeypatch.setitem(CLAUSES, "selftests/lookup/test_new.py::test_new", ["FM-9"])
    _edit(project, MACS, "\tflowmap_set_macs(value, dest, source);")
    assert LOOKUPS[0] in select()
    assert logged[0].startswith("1 test of 1101 not measured")


def test_damaged_measurement_is_one_line(project: Path, select: Select) -> None:
    folder = project / "build/coverage"
    folder.mkdir(parents=True)
    (folder / "executed-lines.json.zst").write_bytes(b"\x28\xb5\x2f\xfd damaged")
    _edit(project, MACS, "\tflowmap_set_macs(value, dest, source);")
    with pytest.raises(UserError, match=r"executed-lines.json.zst: .*: run tox -e coverage again"):
        select()


def test_nothing_changed_is_one_line(select: Select) -> None:
    with pytest.raises(UserError, match=r"since HEAD \(there are none\): give an older revision"):
        select()


@pytest.mark.usefixtures("select")
def test_revision_is_checked_before_a_kernel_is_built(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(revision: str, tree: Path | None = None) -> None:
        options = SimpleNamespace(tree=tree)
        monkeypatch.setattr(affected_mode, "from_namespace", lambda _option: options)
        values = {"since": revision}
        config = SimpleNamespace(option=None, getoption=values.__getitem__)
        affected_mode.require_changes(cast(pytest.Config, config))

    with pytest.raises(UserError, match="nothing has changed since HEAD: give an older"):
        require("HEAD")
    with pytest.raises(UserError, match="give a revision with --since"):
        require("nowhere")
    tree = project.parent / "linux"
    tree.mkdir()
    (tree / "a.c").touch()
    _git(tree, "init", "-q")
    _git(tree, "add", ".")
    _git(tree, "commit", "-qm", "first")
    with pytest.raises(UserError, match="nothing has changed since HEAD"):
        require("HEAD", tree)
    (project / "docs/contract.md").write_text("edited")
    require("HEAD", tree)
    require("HEAD")
