# SPDX-License-Identifier: GPL-2.0-only
"""Patch mails that apply or do not, and parsing of checkpatch output."""

import subprocess
from pathlib import Path

import pytest

from fixtures.host.kernel import patch_series
from fixtures.host.patchcheck import git_am_checkpatch
from fixtures.host.util.errors import UserError
from fixtures.host.util.subprocess_util import CommandError

BEFORE = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"


def git(folder: Path, *argv: str) -> None:
    """Run git with a test identity."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *argv], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def patches(tmp_path: Path) -> patch_series.PatchSeries:
    """Two patches of one file, written by git format-patch."""
    repo, folder = tmp_path / "repo", tmp_path / "patches"
    repo.mkdir()
    git(repo, "init", "-q")
    for text in (BEFORE, BEFORE.replace("two", "2"), BEFORE.replace("two", "2") + "eight\n"):
        (repo / "file.c").write_text(text)
        git(repo, "add", "file.c")
        git(repo, "commit", "-q", "-m", f"file: {len(text)}")
    git(repo, "format-patch", "-q", "-o", str(folder), "HEAD~2")
    names = sorted(path.name for path in folder.iterdir())
    (folder / "series").write_text("\n".join(names))
    return patch_series.load_series(folder, "patches")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The sources without the patches."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "file.c").write_text(BEFORE)
    return folder


def test_applicable_mails_have_no_findings(patches: patch_series.PatchSeries, tree: Path) -> None:
    assert (
        git_am_checkpatch.check_git_am(patches, tree, patch_series.make_overlay(patches, tree))
        == []
    )
    assert (tree / "file.c").read_text() == BEFORE


def test_mail_that_does_not_apply_is_a_finding(
    patches: patch_series.PatchSeries, tree: Path
) -> None:
    wanted = patch_series.make_overlay(patches, tree)
    (tree / "file.c").write_text(BEFORE.replace("three", "3"))
    (finding,) = git_am_checkpatch.check_git_am(patches, tree, wanted)
    assert finding.place == f"patches/{patches.patches[0][0]}"
    assert "git am" in finding.text


def test_different_result_of_git_am_is_a_finding(
    patches: patch_series.PatchSeries, tree: Path
) -> None:
    (finding,) = git_am_checkpatch.check_git_am(patches, tree, {"file.c": b"something else\n"})
    assert finding.place == "file.c"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", []),
        (
            'print "/somewhere/0001.patch:7: WARNING: odd\\n"; exit 1',
            ["WARNING: odd", "WARNING: odd"],
        ),
        ('print STDERR "no such option\\n"; exit 2', ["checkpatch: no such option"] * 2),
    ],
    ids=["clean", "warning", "broken"],
)
def test_checkpatch_output_becomes_findings(
    patches: patch_series.PatchSeries, tree: Path, script: str, expected: list[str]
) -> None:
    (tree / "scripts").mkdir()
    (tree / "scripts/checkpatch.pl").write_text(f"{script};\n")
    assert [
        finding.text for finding in git_am_checkpatch.check_checkpatch(patches, tree)
    ] == expected


@pytest.mark.parametrize("count", ["0", "3", "-1", "one", ""])
def test_invalid_patch_count_is_rejected(patches: patch_series.PatchSeries, count: str) -> None:
    with pytest.raises(UserError, match="has 2 patches"):
        patch_series.first_patches(patches, count)


def test_first_patches_are_a_prefix_of_series(patches: patch_series.PatchSeries) -> None:
    assert patch_series.first_patches(patches, "1").patches == patches.patches[:1]
    assert patch_series.first_patches(patches, "2").sha256 == patches.sha256


def test_git_error_is_not_a_finding(patches: patch_series.PatchSeries, tree: Path) -> None:
    with pytest.raises(CommandError):
        git_am_checkpatch.check_git_am(patches, tree, {})
