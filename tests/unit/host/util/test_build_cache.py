# SPDX-License-Identifier: GPL-2.0-only
"""Folders named after their inputs: created once, by one of several processes, never in part."""

import os
from pathlib import Path

import pytest

from fixtures.host.util.build_cache import get_or_create
from fixtures.host.util.errors import UserError
from tests.unit.host.util.small_file_system import small_file_system


def names(folder: Path) -> list[str]:
    """Return the names of a folder's entries, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())


def test_folder_is_created_once(tmp_path: Path) -> None:
    created: list[Path] = []

    def create(fresh: Path, scratch: Path) -> None:
        assert scratch.is_dir()
        created.append(fresh)

    for _ in range(2):
        assert get_or_create(tmp_path, lambda: "key", create) == tmp_path / "key"
    assert len(created) == 1
    assert names(tmp_path) == ["key"]


def test_inputs_edited_while_folder_is_created_are_read_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("old")

    def create(fresh: Path, _: Path) -> None:
        (fresh / "copy").write_text(source.read_text())
        source.write_text("new")

    made = get_or_create(tmp_path / "cache", source.read_text, create)
    assert made.name == "new"
    assert (made / "copy").read_text() == "new"
    assert names(tmp_path / "cache") == ["new"]


def test_inputs_edited_all_the_time_are_refused(tmp_path: Path) -> None:
    keys = iter("abcdefgh")
    with pytest.raises(UserError, match="changed 3 times"):
        get_or_create(tmp_path, lambda: next(keys), lambda *_: None)
    assert names(tmp_path) == []


def test_two_processes_that_create_one_folder_agree(tmp_path: Path) -> None:
    started, finished = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:

        def create_slowly(fresh: Path, _: Path) -> None:
            os.write(started[1], b"x")
            os.read(finished[0], 1)  # until the other process has put its folder in place
            (fresh / "file").write_text("same")

        try:
            made = get_or_create(tmp_path, lambda: "key", create_slowly)
            os._exit(0 if (made / "file").read_text() == "same" else 1)
        finally:
            os._exit(2)
    os.read(started[0], 1)
    get_or_create(tmp_path, lambda: "key", lambda fresh, _: _write(fresh))
    os.write(finished[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert names(tmp_path) == ["key"]


def _write(fresh: Path) -> None:
    (fresh / "file").write_text("same")


def test_full_disk_leaves_no_part_of_folder(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "cache", 64) as cache:

        def create(fresh: Path, _: Path) -> None:
            (fresh / "small").write_text("x")
            (fresh / "large").write_bytes(bytes(1 << 20))

        with pytest.raises(OSError, match="No space left"):
            get_or_create(cache, lambda: "key", create)
        assert names(cache) == []
