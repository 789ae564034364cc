# SPDX-License-Identifier: GPL-2.0-only
"""A run's folder: gone with its run, and with a run that was killed; never a living one's."""

from pathlib import Path

import pytest

from fixtures.host.util.errors import UserError
from fixtures.host.util.run_directory import new_scratch


def test_it_goes_with_the_run(tmp_path: Path) -> None:
    with new_scratch(tmp_path) as scratch:
        (scratch / "state").touch()
    assert not scratch.exists()


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "state").touch()
    with new_scratch(tmp_path):
        assert not dead.exists()


def test_a_living_run_keeps_its_own(tmp_path: Path) -> None:
    with new_scratch(tmp_path) as first, new_scratch(tmp_path):
        assert first.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match="file"), new_scratch(blocked / "run"):
        pass
