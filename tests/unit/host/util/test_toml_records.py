# SPDX-License-Identifier: GPL-2.0-only
"""Files of reasons: what is wrong with one is told with its place."""

from pathlib import Path

import pytest

from fixtures.host.coverage import exclusions
from fixtures.host.mutation import equivalent_mutants
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT
from fixtures.host.util.toml_records import read_tables

_KEYS = {"file": str, "lines": list}


def test_file_that_is_not_there_is_an_empty_list(tmp_path: Path) -> None:
    assert read_tables(tmp_path / "none.toml", "odd", _KEYS) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[odd]\n", "odd.toml: "),
        ("[[even]]\n", r"only \[\[odd\]\] tables"),
        ("odd = 1\n", r"only \[\[odd\]\] tables"),
        ("odd = [1]\n", "entry 1: give file, lines, and nothing else"),
        ('[[odd]]\nfile = "x.c"\n', "entry 1: give file, lines, and nothing else"),
        ('[[odd]]\nfile = "x.c"\nlines = "a"\n', "entry 1: lines has to be a list"),
        ('[[odd]]\nfile = ""\nlines = ["a"]\n', "entry 1: file has to be a str"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_tables(path, "odd", _KEYS)


def test_lines_are_text(tmp_path: Path) -> None:
    path = tmp_path / exclusions.NAME
    path.write_text('[[unreached]]\nfile = "x.c"\nfunction = "f"\nlines = [1]\nreason = "so"\n')
    with pytest.raises(UserError, match="entry 1: lines has to be a list of text"):
        exclusions.load(path)


def test_own_files_of_the_series_can_be_read() -> None:
    for folder in (ROOT / "patches").iterdir():
        exclusions.load(folder / exclusions.NAME)
        equivalent_mutants.load(folder / equivalent_mutants.NAME)
