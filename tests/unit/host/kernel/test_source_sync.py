# SPDX-License-Identifier: GPL-2.0-only
"""The build tree: correct whatever its previous state, and updated by few writes."""

import os
from pathlib import Path

import pytest

from fixtures.host.kernel import source_sync
from fixtures.host.kernel.source_sync import BuildTree
from fixtures.host.kernel.sources.kernel_source import SourceTree

OLD = 1_000_000_000_000_000_000


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Return a tree whose files have an old mtime."""
    folder = tmp_path / "origin"
    (folder / "net").mkdir(parents=True)
    for name in ("net/a.c", "net/b.c", "Makefile"):
        (folder / name).write_text(f"{name}\n")
        os.utime(folder / name, ns=(OLD, OLD))
    (folder / "link").symlink_to("net/a.c")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> BuildTree:
    """Return an empty build tree."""
    return BuildTree(tmp_path / "work")


def times(work: BuildTree) -> dict[str, int]:
    """Return the mtime of each file."""
    return {
        str(path.relative_to(work.source)): path.lstat().st_mtime_ns
        for path in work.source.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("immutable", [True, False])
def test_overlay_is_applied_to_copy(origin: Path, work: BuildTree, immutable: bool) -> None:
    tree = SourceTree(origin, None, immutable)
    work.sync(tree, {"net/a.c": b"patched\n", "net/b.c": None, "net/new.c": b"new\n"})
    assert (work.source / "net/a.c").read_text() == "patched\n"
    assert not (work.source / "net/b.c").exists()
    assert (work.source / "net/new.c").read_text() == "new\n"
    assert (work.source / "Makefile").read_text() == "Makefile\n"
    assert (work.source / "link").is_symlink()
    assert (origin / "net/a.c").read_text() == "net/a.c\n", "written through a hard link"


@pytest.mark.parametrize("immutable", [True, False])
def test_only_changed_files_are_written(origin: Path, work: BuildTree, immutable: bool) -> None:
    tree = SourceTree(origin, None, immutable)
    work.sync(tree, {"net/a.c": b"patched\n", "net/b.c": b"same\n"})
    before = times(work)
    assert work.sync(tree, {"net/a.c": b"again\n", "net/b.c": b"same\n"}) == 1
    after = times(work)
    assert {path for path in after if after[path] != before[path]} == {"net/a.c"}


def test_file_restored_from_tree_gets_new_mtime(origin: Path, work: BuildTree) -> None:
    tree = SourceTree(origin, None, immutable=True)
    work.sync(tree, {"net/a.c": b"patched\n", "net/new.c": b"new\n"})
    assert work.sync(tree, {}) == 2
    assert (work.source / "net/a.c").read_text() == "net/a.c\n"
    assert times(work)["net/a.c"] > OLD, "make would think that its object is newer"
    assert not (work.source / "net/new.c").exists()


def test_edits_of_tree_are_copied(origin: Path, work: BuildTree) -> None:
    tree = SourceTree(origin, None, immutable=False)
    work.sync(tree, {})
    (origin / "net/a.c").write_text("edited\n")
    (origin / "net/b.c").unlink()
    (origin / "net/c.c").write_text("c\n")
    assert work.sync(tree, {}) == 3
    assert (work.source / "net/a.c").read_text() == "edited\n"
    assert not (work.source / "net/b.c").exists()
    assert (work.source / "net/c.c").exists()


def test_edit_within_one_clock_tick_is_copied(
    origin: Path, work: BuildTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (origin / "net/a.c").lstat()
    tree = SourceTree(origin, None, immutable=False)
    work.sync(tree, {})
    with (origin / "net/a.c").open("r+") as file:
        file.write("NET/a.c")
    # A file system whose clock has not advanced since the first sync read the file.
    lstat = Path.lstat
    monkeypatch.setattr(
        Path, "lstat", lambda path: found if path == origin / "net/a.c" else lstat(path)
    )
    assert work.sync(tree, {}) == 1
    assert (work.source / "net/a.c").read_text() == "NET/a.c\n"


def test_copy_with_old_times_is_copied(
    origin: Path, work: BuildTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_sync, "_CLOCK_TICK_NS", 0)
    tree = SourceTree(origin, None, immutable=False)
    work.sync(tree, {})
    (origin / "net/a.c").write_text("net/z.c\n")
    os.utime(origin / "net/a.c", ns=(OLD, OLD))
    assert work.sync(tree, {}) == 1


def test_touched_but_equal_file_is_not_written(origin: Path, work: BuildTree) -> None:
    tree = SourceTree(origin, None, immutable=False)
    work.sync(tree, {})
    os.utime(origin / "net/a.c")
    assert work.sync(tree, {}) == 0


def test_edit_hidden_by_overlay_appears_without_overlay(origin: Path, work: BuildTree) -> None:
    tree = SourceTree(origin, None, immutable=False)
    work.sync(tree, {"net/a.c": b"patched\n"})
    (origin / "net/a.c").write_text("edited\n")
    work.sync(tree, {"net/a.c": b"patched\n"})
    assert (work.source / "net/a.c").read_text() == "patched\n"
    work.sync(tree, {})
    assert (work.source / "net/a.c").read_text() == "edited\n"


def test_interrupted_sync_is_repaired_by_next(
    origin: Path, work: BuildTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = SourceTree(origin, None, immutable=True)
    work.sync(tree, {})
    written = BuildTree._put

    def interrupted(self: BuildTree, path: str, content: bytes | None, below: Path) -> bool:
        if path == "net/b.c":
            raise KeyboardInterrupt
        return written(self, path, content, below)

    with monkeypatch.context() as patch:
        patch.setattr(BuildTree, "_put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work.sync(tree, {"net/a.c": b"patched\n", "net/b.c": b"patched\n"})
    work.sync(tree, {})
    assert (work.source / "net/a.c").read_text() == "net/a.c\n"


def test_build_folder_survives_sync(origin: Path, work: BuildTree) -> None:
    tree = SourceTree(origin, None, immutable=False)
    work.sync(tree, {})
    built = work.build_dir("base") / "a.o"
    built.parent.mkdir()
    built.write_text("object")
    (origin / "net/a.c").write_text("edited\n")
    work.sync(tree, {})
    assert built.exists()
