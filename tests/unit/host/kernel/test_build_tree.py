# SPDX-License-Identifier: GPL-2.0-only
"""The private copy: right whatever was in it before, and written to as little as possible."""

import os
from pathlib import Path

import pytest

from fixtures.host.kernel.build_tree import WorkTree
from fixtures.host.kernel.sources.resolver import Tree

OLD = 1_000_000_000_000_000_000


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A tree with files that are long past."""
    folder = tmp_path / "origin"
    (folder / "net").mkdir(parents=True)
    for name in ("net/a.c", "net/b.c", "Makefile"):
        (folder / name).write_text(f"{name}\n")
        os.utime(folder / name, ns=(OLD, OLD))
    (folder / "link").symlink_to("net/a.c")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> WorkTree:
    """An empty work tree."""
    return WorkTree(tmp_path / "work")


def times(work: WorkTree) -> dict[str, int]:
    """When each file was written."""
    return {
        str(path.relative_to(work.source)): path.lstat().st_mtime_ns
        for path in work.source.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("immutable", [True, False])
def test_the_overlay_lies_on_a_copy(origin: Path, work: WorkTree, immutable: bool) -> None:
    tree = Tree(origin, None, immutable)
    work.sync(tree, {"net/a.c": b"patched\n", "net/b.c": None, "net/new.c": b"new\n"})
    assert (work.source / "net/a.c").read_text() == "patched\n"
    assert not (work.source / "net/b.c").exists()
    assert (work.source / "net/new.c").read_text() == "new\n"
    assert (work.source / "Makefile").read_text() == "Makefile\n"
    assert (work.source / "link").is_symlink()
    assert (origin / "net/a.c").read_text() == "net/a.c\n", "written through a hard link"


@pytest.mark.parametrize("immutable", [True, False])
def test_only_what_changes_is_written(origin: Path, work: WorkTree, immutable: bool) -> None:
    tree = Tree(origin, None, immutable)
    work.sync(tree, {"net/a.c": b"patched\n", "net/b.c": b"same\n"})
    before = times(work)
    assert work.sync(tree, {"net/a.c": b"again\n", "net/b.c": b"same\n"}) == 1
    after = times(work)
    assert {path for path in after if after[path] != before[path]} == {"net/a.c"}


def test_a_file_that_a_patch_no_longer_touches_is_restored_as_newly_written(
    origin: Path, work: WorkTree
) -> None:
    tree = Tree(origin, None, immutable=True)
    work.sync(tree, {"net/a.c": b"patched\n", "net/new.c": b"new\n"})
    assert work.sync(tree, {}) == 2
    assert (work.source / "net/a.c").read_text() == "net/a.c\n"
    assert times(work)["net/a.c"] > OLD, "make would think that its object is newer"
    assert not (work.source / "net/new.c").exists()


def test_an_edited_tree_is_followed(origin: Path, work: WorkTree) -> None:
    tree = Tree(origin, None, immutable=False)
    work.sync(tree, {})
    (origin / "net/a.c").write_text("edited\n")
    (origin / "net/b.c").unlink()
    (origin / "net/c.c").write_text("c\n")
    assert work.sync(tree, {}) == 3
    assert (work.source / "net/a.c").read_text() == "edited\n"
    assert not (work.source / "net/b.c").exists()
    assert (work.source / "net/c.c").exists()


def test_a_touched_but_equal_file_is_not_written(origin: Path, work: WorkTree) -> None:
    tree = Tree(origin, None, immutable=False)
    work.sync(tree, {})
    os.utime(origin / "net/a.c")
    assert work.sync(tree, {}) == 0


def test_an_edit_below_the_overlay_arrives_when_the_overlay_goes(
    origin: Path, work: WorkTree
) -> None:
    tree = Tree(origin, None, immutable=False)
    work.sync(tree, {"net/a.c": b"patched\n"})
    (origin / "net/a.c").write_text("edited\n")
    work.sync(tree, {"net/a.c": b"patched\n"})
    assert (work.source / "net/a.c").read_text() == "patched\n"
    work.sync(tree, {})
    assert (work.source / "net/a.c").read_text() == "edited\n"


def test_an_interrupted_sync_is_mended_by_the_next(
    origin: Path, work: WorkTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(origin, None, immutable=True)
    work.sync(tree, {})
    written = WorkTree._put

    def interrupted(self: WorkTree, path: str, content: bytes | None, below: Path) -> bool:
        if path == "net/b.c":
            raise KeyboardInterrupt
        return written(self, path, content, below)

    with monkeypatch.context() as patch:
        patch.setattr(WorkTree, "_put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work.sync(tree, {"net/a.c": b"patched\n", "net/b.c": b"patched\n"})
    work.sync(tree, {})
    assert (work.source / "net/a.c").read_text() == "net/a.c\n"


def test_build_folders_stay(origin: Path, work: WorkTree) -> None:
    tree = Tree(origin, None, immutable=False)
    work.sync(tree, {})
    built = work.build_dir("base") / "a.o"
    built.parent.mkdir()
    built.write_text("object")
    (origin / "net/a.c").write_text("edited\n")
    work.sync(tree, {})
    assert built.exists()
