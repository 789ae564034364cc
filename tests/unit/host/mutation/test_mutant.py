# SPDX-License-Identifier: GPL-2.0-only
"""Mutant patches: parsing of the header, and errors for malformed headers."""

from pathlib import Path

import pytest

from fixtures.host.model.contract_clauses import enclosing
from fixtures.host.model.contract_clauses import load as load_contract
from fixtures.host.mutation.mutant import load, load_all
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT

GOOD = """\
Subject: the reply's addresses are not swapped

Half of the packets are not found.

Clause: FM-4, SN-6
Kind: v0 V0-7
Patch: 3
Profile: base
---
--- a/x.c
+++ b/x.c
@@ -1,1 +1,1 @@
-a
+b
"""


def write_patch(folder: Path, text: str, name: str = "a-bug") -> Path:
    path = folder / f"{name}.patch"
    path.write_text(text, encoding="utf-8")
    return path


def test_header_fields_are_parsed(tmp_path: Path) -> None:
    found = load(write_patch(tmp_path, GOOD))
    assert found.name == "a-bug"
    assert found.subject == "the reply's addresses are not swapped"
    assert found.text == "Half of the packets are not found."
    assert found.clauses == ("FM-4", "SN-6")
    assert (found.kind, found.patch, found.profile) == ("v0 V0-7", 3, "base")
    assert found.survives == ""
    assert found.place == "x.c:1"


def test_indented_line_continues_field(tmp_path: Path) -> None:
    text = GOOD.replace("---\n---", "Survives: both are\n  the same\n---\n---", 1)
    assert load(write_patch(tmp_path, text)).survives == "both are the same"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Clause: FM-4, SN-6\n", "", "no line Clause:"),
        ("Kind: v0 V0-7", "Kind: dream", "Kind: must begin with one of"),
        ("Profile: base", "Profile: dream", "Profile: must be one of"),
        ("Patch: 3", "Patch: 6", "Patch: must be a number from 1 to 5"),
        ("@@ -1,1 +1,1 @@\n", "", "no line --- followed by a diff"),
    ],
)
def test_malformed_header_error_names_file_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write_patch(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_pattern_selects_by_name(tmp_path: Path) -> None:
    for name in ("core-a", "core-b", "snoop-a"):
        write_patch(tmp_path, GOOD, name)
    assert [m.name for m in load_all(tmp_path, [])] == ["core-a", "core-b", "snoop-a"]
    assert [m.name for m in load_all(tmp_path, ["core-*"])] == ["core-a", "core-b"]
    assert [m.name for m in load_all(tmp_path, ["*-a.patch"])] == ["core-a", "snoop-a"]


def test_pattern_without_match_is_rejected(tmp_path: Path) -> None:
    write_patch(tmp_path, GOOD)
    with pytest.raises(UserError, match="--only other"):
        load_all(tmp_path, ["other"])


def test_shipped_mutants_name_existing_clauses() -> None:
    sentences = load_contract(ROOT / "docs/contract.md")
    known = {name for sentence in sentences for name in enclosing(sentence.id)}
    found = load_all(ROOT / "patches/v7.3/mutants", [])
    assert found
    assert {clause for mutant in found for clause in mutant.clauses} <= known
