# SPDX-License-Identifier: GPL-2.0-only
"""A run's folder: removed with its run, or as a stale one; never while its run is alive."""

import subprocess
import sys
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


def test_run_that_starts_meanwhile_does_not_remove_new_directory(tmp_path: Path) -> None:
    """Processes start runs again and again; none loses its folder to another one."""
    code = (
        "import pathlib, sys\n"
        f"from {new_run_directory.__module__} import new_run_directory\n"
        "for number in range(50):\n"
        "    with new_run_directory(pathlib.Path(sys.argv[1])) as folder:\n"
        "        (folder / 'state').write_text('x')\n"
        "        assert (folder / 'alive').exists()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, errors
    assert list(tmp_path.iterdir()) == []


def test_unwritable_base_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match="file"), new_run_directory(blocked / "run"):
        pass
