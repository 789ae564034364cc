# SPDX-License-Identifier: GPL-2.0-only
"""Headers of seeded bugs: what is read of them, and what is said of bad ones."""

from pathlib import Path

import pytest

from fixtures.host.model.contract_clauses import load as load_clauses
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


def written(folder: Path, text: str, name: str = "a-bug") -> Path:
    path = folder / f"{name}.patch"
    path.write_text(text, encoding="utf-8")
    return path


def test_header_is_read(tmp_path: Path) -> None:
    found = load(written(tmp_path, GOOD))
    assert found.name == "a-bug"
    assert found.subject == "the reply's addresses are not swapped"
    assert found.text == "Half of the packets are not found."
    assert found.clauses == ("FM-4", "SN-6")
    assert (found.kind, found.patch, found.profile) == ("v0 V0-7", 3, "base")
    assert found.survives == ""
    assert found.place == "x.c:1"


def test_field_goes_on_in_indented_lines(tmp_path: Path) -> None:
    text = GOOD.replace("---\n---", "Survives: both are\n  the same\n---\n---", 1)
    assert load(written(tmp_path, text)).survives == "both are the same"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Clause: FM-4, SN-6\n", "", "no line Clause:"),
        ("Kind: v0 V0-7", "Kind: dream", "Kind: begins with one of"),
        ("Profile: base", "Profile: dream", "Profile: is one of"),
        ("Patch: 3", "Patch: 4", "Patch: is 1, 2 or 3"),
        ("@@ -1,1 +1,1 @@\n", "", "no line --- with a diff"),
    ],
)
def test_bad_header_is_one_line_with_the_file(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UserError, match=said) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_pattern_chooses_by_name(tmp_path: Path) -> None:
    for name in ("core-a", "core-b", "snoop-a"):
        written(tmp_path, GOOD, name)
    assert [m.name for m in load_all(tmp_path, [])] == ["core-a", "core-b", "snoop-a"]
    assert [m.name for m in load_all(tmp_path, ["core-*"])] == ["core-a", "core-b"]
    assert [m.name for m in load_all(tmp_path, ["*-a.patch"])] == ["core-a", "snoop-a"]


def test_pattern_that_fits_none_is_refused(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(UserError, match="--only other"):
        load_all(tmp_path, ["other"])


def test_own_patches_name_clauses_that_there_are() -> None:
    known = {clause.id for clause in load_clauses(ROOT / "docs/contract.md")}
    found = load_all(ROOT / "patches/v7.3/mutants", [])
    assert found
    assert {clause for mutant in found for clause in mutant.clauses} <= known
