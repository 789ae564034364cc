# SPDX-License-Identifier: GPL-2.0-only
"""A run's folder: removed with its run, or as a stale one; never while its run is alive."""

from pathlib import Path

import pytest

from fixtures.host.util.errors import UserError
from fixtures.host.util.run_tmpdir import new_run_directory


def test_run_directory_is_removed_when_run_ends(tmp_path: Path) -> None:
    with new_run_directory(tmp_path) as scratch:
        (scratch / "state").touch()
    assert not scratch.exists()


def test_stale_run_directory_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "state").touch()
    with new_run_directory(tmp_path):
        assert not dead.exists()


def test_run_directory_of_live_run_stays(tmp_path: Path) -> None:
    with new_run_directory(tmp_path) as first, new_run_directory(tmp_path):
        assert first.exists()


def test_unwritable_base_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match="file"), new_run_directory(blocked / "run"):
        pass
