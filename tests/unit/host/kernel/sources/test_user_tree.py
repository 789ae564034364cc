# SPDX-License-Identifier: GPL-2.0-only
"""The user's own tree: which trees are refused, and what changes the identity."""

import os
from pathlib import Path

import pytest

from fixtures.host.kernel.sources.user_tree import open_user_tree
from fixtures.host.util.errors import UserError
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


@pytest.mark.parametrize("left", [".config", "include/config/x", "include/generated/x"])
def test_in_tree_build_is_refused(git: Path, left: str) -> None:
    (git / left).parent.mkdir(parents=True, exist_ok=True)
    (git / left).write_text("\n")
    with pytest.raises(UserError, match="make mrproper"):
        open_user_tree(git, False, allow_dirty=True)


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
