# SPDX-License-Identifier: GPL-2.0-only
"""The user's own tree: what is refused, and what makes it another kernel."""

import os
from pathlib import Path

import pytest

from fixtures.host.kernel.sources.user_tree import open_tree
from fixtures.host.util.errors import UserError
from fixtures.host.util.subprocess_util import run

MAKEFILE = "# SPDX\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """What looks like a kernel."""
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
    """The same in git, committed."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    (plain / ".gitignore").write_text("*.o\n")
    run(["git", "init", "-q"], cwd=plain)
    run(["git", "add", "."], cwd=plain)
    run(["git", "commit", "-qm", "all"], cwd=plain)
    return plain


def test_the_version_is_read(plain: Path) -> None:
    source = open_tree(plain, apply_series=True, allow_dirty=False)
    assert source.version == "7.3.4"
    assert source.takes_series
    assert "net/a.c" in source.files


@pytest.mark.parametrize("gone", ["Makefile", "Kconfig", "Kbuild"])
def test_what_is_no_kernel_is_refused(plain: Path, gone: str) -> None:
    (plain / gone).unlink()
    with pytest.raises(UserError, match="not a kernel tree"):
        open_tree(plain, False, False)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a kernel tree"):
        open_tree(tmp_path / "gone", False, False)


@pytest.mark.parametrize("left", [".config", "include/config/x", "include/generated/x"])
def test_a_tree_that_was_built_in_is_refused(git: Path, left: str) -> None:
    (git / left).parent.mkdir(parents=True, exist_ok=True)
    (git / left).write_text("\n")
    with pytest.raises(UserError, match="make mrproper"):
        open_tree(git, False, allow_dirty=True)


def test_a_dirty_tree_is_refused_and_names_a_file(git: Path) -> None:
    (git / "net/a.c").write_text("edited\n")
    with pytest.raises(UserError, match=r"net/a\.c.*--allow-dirty"):
        open_tree(git, False, False)


def test_a_file_that_git_does_not_know_is_dirt_too_unless_it_is_ignored(git: Path) -> None:
    (git / "net/a.o").write_text("object\n")
    assert not open_tree(git, False, False).dirty
    (git / "net/b.c").write_text("b\n")
    with pytest.raises(UserError, match=r"net/b\.c"):
        open_tree(git, False, False)
    allowed = open_tree(git, False, allow_dirty=True)
    assert "net/b.c" in allowed.files
    assert "net/a.o" not in allowed.files


def test_every_edit_is_another_kernel(git: Path) -> None:
    states = [open_tree(git, False, True).identity]
    for text in ("one\n", "two\n"):
        (git / "net/a.c").write_text(text)
        states.append(open_tree(git, False, True).identity)
    (git / "new").mkdir()
    for text in ("one\n", "two\n"):
        (git / "new/c.c").write_text(text)
        states.append(open_tree(git, False, True).identity)
    assert len(set(states)) == 5


def test_without_git_times_and_sizes_tell(plain: Path) -> None:
    before = open_tree(plain, False, False).identity
    assert open_tree(plain, False, False).identity == before
    os.utime(plain / "net/a.c", ns=(1, 1))
    assert open_tree(plain, False, False).identity != before


def test_opening_writes_nothing(git: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in git.rglob("*")
        }

    os.utime(git / "net/a.c")  # makes git status want to refresh its index
    before = state()
    open_tree(git, False, True)
    assert state() == before
