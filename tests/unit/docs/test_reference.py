# SPDX-License-Identifier: GPL-2.0-only
"""docs/reference lists every option, fixture, marker and environment variable, and no other."""

import ast
import re
from pathlib import Path

from fixtures.guest.pytest_plugin.markers_and_hooks import MARKERS
from fixtures.host.util.paths import ROOT
from tests.unit.docs.documented_commands import DOCUMENTS

REFERENCE = ROOT / "docs/reference"


def _column(document: str, header: str) -> set[str]:
    """Return the words in code style in the first column of the tables with this header."""
    text = (REFERENCE / document).read_text()
    rows = re.findall(rf"(?m)^\| {header} \|.*\n\|.*\n((?:\|.*\n)+)", text)
    cells = [row.split("|")[1] for table in rows for row in table.splitlines()]
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def _sources(*folders: str) -> str:
    return "\n".join(
        path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))
    )


def _is_fixture(node: ast.FunctionDef) -> bool:
    return any("pytest.fixture" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_every_fixture_is_listed() -> None:
    trees = map(
        ast.parse, map(Path.read_text, (ROOT / "fixtures/guest/pytest_plugin").glob("*.py"))
    )
    functions = [
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _is_fixture(node)
    ]
    assert _column("fixtures.md", "fixture") == {
        name for name in functions if not name.startswith("_")
    }


def test_every_marker_is_listed() -> None:
    listed = {cell.partition("(")[0] for cell in _column("fixtures.md", "marker")}
    assert listed == {marker.partition(":")[0].partition("(")[0] for marker in MARKERS}


def test_every_option_is_listed() -> None:
    text = (REFERENCE / "options.md").read_text()
    declared: set[str] = set()
    for path in [
        ROOT / "fixtures/host/pytest_plugin/options.py",
        ROOT / "fixtures/host/kernel/kernel_cli_options.py",
        *(ROOT / "fixtures/host").glob("*/cli.py"),
    ]:
        declared |= _new_flags(ast.parse(path.read_text()))
    assert sorted(flag for flag in declared if f"`{flag}" not in text) == []


def _new_flags(tree: ast.Module) -> set[str]:
    """Return the flags given to calls that declare an option; old spellings are left out."""
    flags: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.endswith(("add_argument", "addoption", "Option")):
            flags |= {word for word in map(_text, node.args[:1]) if word.startswith("--")}
        elif called.endswith(("add_renamed_option", "_add_renamed")):
            flags |= {word for word in map(_text, node.args[1:2]) if word.startswith("--")}
    return flags


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_every_variable_of_the_suite_is_listed() -> None:
    read = set(
        re.findall(
            r'environ\S*\W"(FLOWMAP_\w+)"',
            _sources("fixtures", "tests/unit", "tests/canary", "tests/interrupts"),
        )
    )
    listed = {name for name in _column("environment.md", "variable") if name.startswith("FLOWMAP_")}
    assert listed == read


def test_every_test_named_in_documents_exists() -> None:
    named = {
        match.groups()
        for document in DOCUMENTS
        for match in re.finditer(r"(\w+/test_\w+\.py)(?:::(test_\w+))?", document.read_text())
    }
    assert len(named) > 50
    missing = []
    for file, function in named:
        found = [*ROOT.glob(f"selftests/{file}"), *ROOT.glob(f"tests/**/{file}")]
        texts = [path.read_text() for path in found]
        if not any(f"def {function or 'test_'}" in text for text in texts):
            missing.append((file, function))
    assert missing == []
