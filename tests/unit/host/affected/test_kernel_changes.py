# SPDX-License-Identifier: GPL-2.0-only
"""Changes of a patch series and of a user's tree, in real git repositories."""

import subprocess
from pathlib import Path

import pytest

from fixtures.host.affected import kernel_changes
from fixtures.host.affected.kernel_changes import (
    FileChange,
    changed_paths,
    changes_of_series,
    changes_of_tree,
)
from fixtures.host.util.errors import UserError

PATCH = """\
--- a/net/a.c
+++ b/net/a.c
@@ -1,2 +1,3 @@
 one
+{added}
 two
"""


def _git(folder: Path, *args: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A kernel tree with one commit."""
    folder = tmp_path / "linux"
    (folder / "net").mkdir(parents=True)
    (folder / "net/a.c").write_text("one\ntwo\n")
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "first")
    return folder


def test_uncommitted_and_new_files_of_a_tree_are_changes(tree: Path) -> None:
    assert changes_of_tree(tree, "HEAD") == []
    (tree / "net/a.c").write_text("one\n2\n")
    (tree / "net/b.h").write_text("new\n")
    (tree / "notes.txt").write_text("x")
    assert changed_paths(tree, "HEAD") == ["net/a.c", "net/b.h", "notes.txt"]
    assert changes_of_tree(tree, "HEAD") == [
        FileChange("net/a.c", "one\ntwo\n", "one\n2\n"),
        FileChange("net/b.h", "", "new\n"),
    ]


def test_unknown_revision_is_refused(tree: Path) -> None:
    with pytest.raises(UserError, match="give a revision with --since"):
        changes_of_tree(tree, "no-such-revision")


def test_edited_patch_changes_what_it_makes_of_the_file(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    series = project / "patches/v1"
    series.mkdir(parents=True)
    (series / "series").write_text("0001-a.patch\n")
    (series / "0001-a.patch").write_text(PATCH.format(added="plus"))
    _git(project, "init", "-q")
    _git(project, "add", ".")
    _git(project, "commit", "-qm", "first")
    monkeypatch.setattr(kernel_changes, "ROOT", project)
    assert changes_of_series("patches/v1", tree, "HEAD") == []
    (series / "0001-a.patch").write_text(PATCH.format(added="minus"))
    assert changes_of_series("patches/v1", tree, "HEAD") == [
        FileChange("net/a.c", "one\nplus\ntwo\n", "one\nminus\ntwo\n")
    ]
    with pytest.raises(UserError):
        changes_of_series("patches/v1", tree, "nowhere")
