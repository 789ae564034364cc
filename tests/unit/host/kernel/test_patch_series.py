# SPDX-License-Identifier: GPL-2.0-only
"""The patch series: the overlay, and which patch and hunk do not apply."""

from pathlib import Path

import pytest

from fixtures.host.kernel import patch_series
from fixtures.host.util.errors import UserError

EDIT = """\
From 0 Mon Sep 17 00:00:00 2001
Subject: [PATCH 1/2] change

--- not a file name
---
 net/a.c | 2 +-

diff --git a/net/a.c b/net/a.c
--- a/net/a.c
+++ b/net/a.c
@@ -1,5 +1,5 @@
 one
-two
+zwei
 three
 four
 five
@@ -21,4 +21,4 @@
 21
 22
-23
+dreiundzwanzig
 24
--\x20
2.39.5
"""
ADD = """\
diff --git a/net/new.c b/net/new.c
new file mode 100644
--- /dev/null
+++ b/net/new.c
@@ -0,0 +1 @@
+new
diff --git a/net/old.c b/net/old.c
deleted file mode 100644
--- a/net/old.c
+++ /dev/null
@@ -1 +0,0 @@
-old
diff --git a/net/a.c b/net/a.c
--- a/net/a.c
+++ b/net/a.c
@@ -1,5 +1,5 @@
-one
+eins
 zwei
 three
 four
 five
diff --git a/net/before.c b/net/after.c
similarity index 100%
rename from net/before.c
rename to net/after.c
"""
LINES = ["one", "two", "three", "four", "five", *map(str, range(6, 25))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with a few files."""
    net = tmp_path / "tree" / "net"
    net.mkdir(parents=True)
    (net / "a.c").write_text("\n".join(LINES) + "\n")
    (net / "old.c").write_text("old\n")
    (net / "before.c").write_text("moved\n")
    return net.parent


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """Return the folder of a series with two patches."""
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "series").write_text("# a comment\n0001-edit.patch\n\n0002-add.patch # another\n")
    (folder / "0001-edit.patch").write_text(EDIT)
    (folder / "0002-add.patch").write_text(ADD)
    return folder


def content(tree: Path) -> dict[str, bytes]:
    """Return path and content of every file in a tree."""
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def test_overlay_has_files_changed_by_series(tree: Path, patches: Path) -> None:
    before = content(tree)
    result = patch_series.make_overlay(patch_series.load_series(patches, "patches"), tree)
    assert result["net/new.c"] == b"new\n"
    assert result["net/old.c"] is None
    assert result["net/before.c"] is None
    assert result["net/after.c"] == b"moved\n"
    edited = result["net/a.c"]
    assert edited
    assert edited.split()[:2] == [b"eins", b"zwei"]
    assert b"dreiundzwanzig" in edited
    assert content(tree) == before


def test_patch_that_does_not_apply_is_named_with_hunk(tree: Path, patches: Path) -> None:
    lines = [line if line != "23" else "changed by another" for line in LINES]
    (tree / "net/a.c").write_text("\n".join(lines) + "\n")
    before = content(tree)
    with pytest.raises(UserError) as caught:
        patch_series.make_overlay(patch_series.load_series(patches, "patches"), tree)
    assert "0001-edit.patch" in str(caught.value)
    assert "hunk #2 of net/a.c (line 21)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content(tree) == before


def test_missing_file_is_named(tree: Path, patches: Path) -> None:
    (tree / "net/old.c").unlink()
    with pytest.raises(UserError, match=r"0002-add\.patch.*net/old\.c"):
        patch_series.make_overlay(patch_series.load_series(patches, "patches"), tree)


def test_malformed_patch_is_named(tree: Path, patches: Path) -> None:
    (patches / "0001-edit.patch").write_text("just words\n")
    with pytest.raises(UserError, match=r"0001-edit\.patch"):
        patch_series.make_overlay(patch_series.load_series(patches, "patches"), tree)


def test_hash_depends_on_content_and_order(patches: Path) -> None:
    first = patch_series.load_series(patches, "patches").sha256
    assert patch_series.load_series(patches, "patches").sha256 == first
    (patches / "series").write_text("0002-add.patch\n0001-edit.patch\n")
    assert patch_series.load_series(patches, "patches").sha256 != first


@pytest.mark.parametrize("listed", ["", "# nothing\n", "0003-gone.patch\n"])
def test_series_file_without_existing_patches_is_an_error(patches: Path, listed: str) -> None:
    (patches / "series").write_text(listed)
    with pytest.raises(UserError, match="series"):
        patch_series.load_series(patches, "patches")


def test_missing_series_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="series"):
        patch_series.load_series(tmp_path, "patches")


def test_overlay_does_not_depend_on_git_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gitconfig").write_text("[apply]\n\twhitespace = fix\n[core]\n\tautocrlf = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'apply.whitespace=fix'")
    patch = b"--- /dev/null\n+++ b/new.c\n@@ -0,0 +1 @@\n+trailing \t \n"
    series = patch_series.PatchSeries(tmp_path, "patches", (("0001.patch", patch),))
    assert patch_series.make_overlay(series, tmp_path) == {"new.c": b"trailing \t \n"}
