# SPDX-License-Identifier: GPL-2.0-only
"""The user's own tree: which trees are refused, and what changes the identity."""

import os
import shutil
from pathlib import Path

import pytest

from fixtures.host.kernel.source_sync import BuildTree
from fixtures.host.kernel.sources.user_tree import open_user_tree
from fixtures.host.util.errors import UserError
from fixtures.host.util.progress import SilentProgress
from fixtures.host.util.subprocess_util import run

MAKEFILE = "# SPDX\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Return a minimal kernel tree without git."""
    folder = tmp_path / "linux"
    (folder / "scripts/kconfig").mkdir(parents=True)
    (folder / "net").mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "net/a.c").write_text("a\n")
    for name in ("Kconfig", "Kbuild", "scripts/kconfig/Makefile"):
        (folder / name).write_text("\n")
    return folder


@pytest.fixture
def git(plain: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the tree as a git repository with one commit."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    (plain / ".gitignore").write_text("*.o\n")
    run(["git", "init", "-q"], cwd=plain)
    run(["git", "add", "."], cwd=plain)
    run(["git", "commit", "-qm", "all"], cwd=plain)
    return plain


def test_version_is_read_from_makefile(plain: Path) -> None:
    source = open_user_tree(plain, apply_series=True, allow_dirty=False)
    assert source.version == "7.3.4"
    assert source.applies_series
    assert "net/a.c" in source.files


@pytest.mark.parametrize("missing", ["Makefile", "Kconfig", "Kbuild"])
def test_folder_without_kernel_is_refused(plain: Path, missing: str) -> None:
    (plain / missing).unlink()
    with pytest.raises(UserError, match="not a kernel tree"):
        open_user_tree(plain, False, False)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a kernel tree"):
        open_user_tree(tmp_path / "missing", False, False)


BUILT = [".config", "include/config/x", "include/generated/x", "net/a.o"]


@pytest.mark.parametrize("left", BUILT[:3])
def test_in_tree_build_without_git_is_refused(plain: Path, left: str) -> None:
    (plain / left).parent.mkdir(parents=True, exist_ok=True)
    (plain / left).write_text("\n")
    with pytest.raises(UserError, match="make mrproper"):
        open_user_tree(plain, False, allow_dirty=True)


def test_in_tree_build_with_git_is_left_out(git: Path, tmp_path: Path) -> None:
    (git / ".gitignore").write_text("*.o\n.*\n!.gitignore\n/include/config/\n/include/generated/\n")
    run(["git", "commit", "-qam", "ignore what a build makes"], cwd=git)
    clean = open_user_tree(git, False, False)
    for left in BUILT:
        (git / left).parent.mkdir(parents=True, exist_ok=True)
        (git / left).write_text("\n")
    built = open_user_tree(git, False, False)
    assert (built.identity, built.files, built.dirty) == (clean.identity, clean.files, False)
    work = BuildTree(tmp_path / "work")
    work.sync(built.fetch(SilentProgress()), {})
    assert not [left for left in BUILT if (work.source / left).exists()]


def test_dirty_tree_is_refused_and_file_named(git: Path) -> None:
    (git / "net/a.c").write_text("edited\n")
    with pytest.raises(UserError, match=r"net/a\.c.*--allow-dirty"):
        open_user_tree(git, False, False)


def test_untracked_file_is_dirty_unless_ignored(git: Path) -> None:
    (git / "net/a.o").write_text("object\n")
    assert not open_user_tree(git, False, False).dirty
    (git / "net/b.c").write_text("b\n")
    with pytest.raises(UserError, match=r"net/b\.c"):
        open_user_tree(git, False, False)
    allowed = open_user_tree(git, False, allow_dirty=True)
    assert "net/b.c" in allowed.files
    assert "net/a.o" not in allowed.files


def test_every_edit_changes_identity(git: Path) -> None:
    states = [open_user_tree(git, False, True).identity]
    for text in ("one\n", "two\n"):
        (git / "net/a.c").write_text(text)
        states.append(open_user_tree(git, False, True).identity)
    (git / "new").mkdir()
    for text in ("one\n", "two\n"):
        (git / "new/c.c").write_text(text)
        states.append(open_user_tree(git, False, True).identity)
    assert len(set(states)) == 5


@pytest.mark.parametrize(
    "setting",
    [
        ("status.showUntrackedFiles", "no"),
        ("status.renames", "copies"),
        ("core.fsmonitor", "/bin/false"),
        ("core.quotePath", "true"),
    ],
    ids=lambda setting: setting[0],
)
@pytest.mark.parametrize("scope", ["--global", "--local"])
def test_new_file_changes_identity_despite_git_configuration(
    git: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str, setting: tuple[str, str]
) -> None:
    before = open_user_tree(git, False, True).identity
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    run(["git", "config", scope, *setting], cwd=git)
    (git / "net/new ü.c").write_text("new\n")
    source = open_user_tree(git, False, True)
    assert source.dirty
    assert source.identity != before
    assert "net/new ü.c" in source.files


def test_identity_of_tree_is_that_of_folder_in_git_hook(
    git: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_user_tree(git, False, False)
    run(["git", "init", "-q", tmp_path / "other"])
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert open_user_tree(git, False, False) == before


def test_file_ignored_by_global_setting_is_no_change(
    git: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "ignore").write_text("tags\n")
    run(["git", "config", "--global", "core.excludesFile", str(tmp_path / "ignore")])
    (git / "tags").write_text("\n")
    source = open_user_tree(git, False, False)
    assert not source.dirty
    assert "tags" not in source.files


def test_edit_of_assume_unchanged_file_changes_identity(git: Path) -> None:
    run(["git", "update-index", "--assume-unchanged", "net/a.c"], cwd=git)
    before = open_user_tree(git, False, False).identity
    (git / "net/a.c").write_text("b\n")
    assert open_user_tree(git, False, False).identity != before


def test_mode_and_link_target_change_identity(git: Path) -> None:
    states = []
    for target in ("missing", "absent"):
        (git / "link").unlink(missing_ok=True)
        (git / "link").symlink_to(target)
        states.append(open_user_tree(git, False, True).identity)
    (git / "net/new.sh").write_text("\n")
    for mode in (0o644, 0o755):
        (git / "net/new.sh").chmod(mode)
        states.append(open_user_tree(git, False, True).identity)
    assert len(set(states)) == 4


def test_other_repository_inside_is_no_source(git: Path) -> None:
    before = open_user_tree(git, False, False)
    (git / "worktree").mkdir()
    run(["git", "init", "-q"], cwd=git / "worktree")
    (git / "worktree/file.c").write_text("\n")
    assert open_user_tree(git, False, False) == before


def test_source_is_current_until_tree_is_edited(git: Path) -> None:
    source = open_user_tree(git, False, False)
    assert source.is_current()
    (git / "net/a.c").write_text("edited\n")
    assert not source.is_current()


def test_without_git_copy_with_old_times_changes_identity(plain: Path, tmp_path: Path) -> None:
    before = open_user_tree(plain, False, False).identity
    (tmp_path / "a.c").write_text("b\n")
    os.utime(tmp_path / "a.c", ns=(1, (plain / "net/a.c").stat().st_mtime_ns))
    shutil.copy2(tmp_path / "a.c", plain / "net/a.c")
    assert open_user_tree(plain, False, False).identity != before


def test_without_git_mtime_changes_identity(plain: Path) -> None:
    before = open_user_tree(plain, False, False).identity
    assert open_user_tree(plain, False, False).identity == before
    os.utime(plain / "net/a.c", ns=(1, 1))
    assert open_user_tree(plain, False, False).identity != before


def test_open_writes_nothing(git: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in git.rglob("*")
        }

    os.utime(git / "net/a.c")  # makes git status want to refresh its index
    before = state()
    open_user_tree(git, False, True)
    assert state() == before
