# SPDX-License-Identifier: GPL-2.0-only
"""The copy of the project has its changes, and making it changes nothing in the repository."""

import io
import tarfile
from pathlib import Path

import pytest

from fixtures.host.machines.project_bundle import make_bundle
from fixtures.host.util.errors import UserError
from fixtures.host.util.git_command import run_git


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return run_git(*identity, *arguments, cwd=folder).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    _git(tmp_path, "init", "--quiet")
    for name in ("kept", "edited", "removed"):
        (tmp_path / name).write_text("old")
    (tmp_path / ".gitignore").write_text("build\n")
    _git(tmp_path, "add", "--all")
    _git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def _files(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name: file.read().decode()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }


def test_bundle_has_changed_and_new_files_without_ignored_ones(clone: Path) -> None:
    (clone / "edited").write_text("new")
    (clone / "removed").unlink()
    (clone / "added").write_text("added")
    (clone / "build").write_text("ignored")
    before = _git(clone, "status", "--porcelain")
    bundle = make_bundle(clone)
    assert _files(bundle.archive) == {
        ".gitignore": "build\n", "added": "added", "edited": "new", "kept": "old",
    }  # fmt: skip
    assert bundle.revision == _git(clone, "rev-parse", "HEAD").strip() + "-dirty"
    assert _git(clone, "status", "--porcelain") == before


def test_folder_that_is_no_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a git clone"):
        make_bundle(tmp_path)
