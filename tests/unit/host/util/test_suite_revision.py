# SPDX-License-Identifier: GPL-2.0-only
"""The project's commit, clean or dirty, whatever git is configured to show."""

from pathlib import Path

import pytest

from fixtures.host.util.subprocess_util import run
from fixtures.host.util.suite_revision import package_versions, suite_revision


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    (tmp_path / "file").write_text("1")
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        run(["git", *command], cwd=tmp_path)
    return tmp_path


def test_revision_is_commit_and_says_if_dirty(clone: Path) -> None:
    commit = run(["git", "rev-parse", "HEAD"], cwd=clone).stdout.strip()
    assert suite_revision(clone) == commit
    (clone / "new").write_text("2")
    assert suite_revision(clone) == f"{commit}-dirty"


def test_folder_without_git_has_no_revision(tmp_path: Path) -> None:
    assert suite_revision(tmp_path) == ""
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    assert suite_revision(tmp_path) == ""


def test_versions_of_packages_are_recorded() -> None:
    versions = package_versions()
    assert {"pytest", "hypothesis", "scapy", "pyroute2", "pytest-xdist"} <= set(versions)
    assert list(versions) == sorted(versions)
