# SPDX-License-Identifier: GPL-2.0-only
"""TOML records: a mistake is reported with its file and record."""

from pathlib import Path

import pytest

from fixtures.host.coverage import exclusions
from fixtures.host.mutation import equivalent_mutants
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT
from fixtures.host.util.toml_records import read_records

_KEYS = {"file": str, "lines": list}


def test_missing_file_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.toml", "odd", _KEYS) == []


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_malformed_record_is_located(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_records(path, "odd", _KEYS)


def test_exclusion_lines_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / exclusions.FILE_NAME
    path.write_text('[[unreached]]\nfile = "x.c"\nfunction = "f"\nlines = [1]\nreason = "so"\n')
    with pytest.raises(UserError, match="entry 1: lines has to be a list of text"):
        exclusions.load_exclusions(path)


def test_exclusions_and_equivalent_mutants_of_the_series_are_valid() -> None:
    for folder in (ROOT / "patches").iterdir():
        exclusions.load_exclusions(folder / exclusions.FILE_NAME)
        equivalent_mutants.load(folder / equivalent_mutants.FILE_NAME)
