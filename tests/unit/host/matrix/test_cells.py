# SPDX-License-Identifier: GPL-2.0-only
"""Cells: their notation, options, selection, and what is refused."""

from pathlib import Path

import pytest

from fixtures.host.matrix.cells import Cell, load_cells, require_options, select_cells
from fixtures.host.matrix.cli import ci_matrix
from fixtures.host.matrix.suite_options import suite_options
from fixtures.host.util.errors import UserError

CELLS = [
    Cell("base", "x86-64", "gcc", "push", 80, "pass"),
    Cell("base", "s390x", "gcc", "weekly", 300, "pass"),
    Cell("debug", "x86-64", "clang", "weekly", 300, "pass"),
]
OPTIONS = {"--vmconfig": None, "--arch": ["x86-64", "s390x"], "--compiler": ["gcc", "clang"]}


def _file(folder: Path, text: str) -> Path:
    path = folder / "matrix.toml"
    path.write_text(text)
    return path


def test_listed_cells_exist_and_the_suite_has_their_options() -> None:
    cells = load_cells()
    kernels = require_options(cells, suite_options())
    assert kernels["base/x86-64/gcc"].startswith("7.")
    assert {cell.expect for cell in cells if cell.profile == "unpatched"} == {"series-missing"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("base", ["base/x86-64/gcc"]),
        ("base/s390x", ["base/s390x/gcc"]),
        ("base/*/*", ["base/x86-64/gcc", "base/s390x/gcc"]),
        ("*/*/clang", ["debug/x86-64/clang"]),
    ],
    ids=["profile", "profile-arch", "all-of-profile", "all-of-compiler"],
)
def test_pattern_selects_cells(pattern: str, names: list[str]) -> None:
    assert [cell.name for cell in select_cells(CELLS, [pattern], None)] == names


def test_group_selects_cells() -> None:
    assert len(select_cells(CELLS, [], "weekly")) == 2
    assert [cell.name for cell in select_cells(CELLS, ["base/*/*"], "weekly")] == ["base/s390x/gcc"]


def test_unknown_cell_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"^--cells base/s390/gcc: .*mean base/s390x/gcc\?$"):
        select_cells(CELLS, ["base/s390/gcc"], None)


def test_defaults_are_no_options() -> None:
    assert CELLS[0].options == ("--vmconfig", "base")
    assert CELLS[1].options == ("--vmconfig", "base", "--arch", "s390x")
    assert CELLS[2].options == ("--vmconfig", "debug", "--compiler", "clang")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell("nope", "x86-64", "gcc", "push", 1, "pass"), "unknown profile 'nope'"),
        (Cell("base", "vax", "gcc", "push", 1, "pass"), "--arch vax is unknown; known: x86-64"),
        (Cell("base", "x86-64", "tcc", "push", 1, "pass"), "--compiler tcc is unknown"),
    ],
    ids=["profile", "arch", "compiler"],
)
def test_unknown_part_of_a_cell_is_refused(cell: Cell, message: str) -> None:
    with pytest.raises(UserError, match=rf"^matrix.toml: {cell.name}: {message}"):
        require_options([cell], OPTIONS)


def test_option_that_the_suite_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"^matrix.toml: base/s390x/gcc: .* no option --arch$"):
        require_options([CELLS[1]], {"--vmconfig": None})


@pytest.mark.parametrize(
    ("name", "group", "expect", "message"),
    [
        ("base/gcc", "push", "pass", "write PROFILE/ARCHITECTURE/COMPILER"),
        ("base/x86-64/gcc", "daily", "pass", "group must be one of push"),
        ("base/x86-64/gcc", "push", "fail", "expect must be pass or"),
    ],
    ids=["name", "group", "expect"],
)
def test_malformed_file_is_refused(
    tmp_path: Path, name: str, group: str, expect: str, message: str
) -> None:
    text = f'[[cell]]\nname = "{name}"\ngroup = "{group}"\nminutes = 1\nexpect = "{expect}"\n'
    with pytest.raises(UserError, match=message):
        load_cells(_file(tmp_path, text))
    good = '[[cell]]\nname = "a/b/c"\ngroup = "push"\nminutes = 1\nexpect = "pass"\n'
    with pytest.raises(UserError, match="a/b/c is listed twice"):
        load_cells(_file(tmp_path, good + good))


def test_ci_gets_each_cell_with_its_parts() -> None:
    first = ci_matrix(CELLS)["include"][0]
    assert first == {
        "cell": "base/x86-64/gcc", "slug": "base-x86-64-gcc", "profile": "base", "arch": "x86-64",
        "compiler": "gcc", "minutes": 80,
    }  # fmt: skip
