# SPDX-License-Identifier: GPL-2.0-only
"""A pinned tarball is accepted if and only if its sha256 matches."""

import hashlib
import os
from pathlib import Path

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel.kernel_cli_options import KernelOptions
from fixtures.host.kernel.sources import kernel_org
from fixtures.host.kernel.sources import tarball as tarball_source
from fixtures.host.kernel.sources.tarball import find_release, open_tarball
from fixtures.host.util.errors import UserError
from fixtures.host.util.progress import SilentProgress
from fixtures.host.util.subprocess_util import run

KERNEL = vm_profile.load_profile("base").kernel


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    """Return a tarball with one file in one folder."""
    (tmp_path / "linux-7").mkdir()
    (tmp_path / "linux-7/Makefile").write_text("VERSION = 7\n")
    run(["tar", "-cJf", "linux.tar.xz", "linux-7"], cwd=tmp_path)
    return tmp_path / "linux.tar.xz"


def test_matching_hash_unpacks_once(tarball: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(tarball.read_bytes()).hexdigest()
    options = KernelOptions(tarball=tarball, tarball_sha256=sha256.upper())
    source = open_tarball(KERNEL, options, tmp_path / "cache", SilentProgress())
    tree = source.fetch(SilentProgress())
    assert (tree.folder / "Makefile").is_file()
    assert source.describe()["patched_by"] == "nobody"
    tarball.unlink()
    assert source.fetch(SilentProgress()) == tree


def test_wrong_hash_leaves_no_files(tarball: Path, tmp_path: Path) -> None:
    options = KernelOptions(tarball=tarball, tarball_sha256="0" * 64)
    source = open_tarball(KERNEL, options, tmp_path / "cache", SilentProgress())
    with pytest.raises(UserError, match="sha256 is"):
        source.fetch(SilentProgress())
    assert source.scripts_dir() is None
    assert [p for p in (tmp_path / "cache").rglob("*") if p.suffix != ".lock" and p.is_file()] == []


def test_unverifiable_tarball_error_names_options(tarball: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"signature linux\.tar\.sign into the same folder, or give --kernel-sha"
    ):
        open_tarball(KERNEL, KernelOptions(tarball=tarball), tmp_path, SilentProgress())


@pytest.mark.parametrize("sha256", ["abc", "g" * 64])
def test_malformed_hash_is_refused(tarball: Path, tmp_path: Path, sha256: str) -> None:
    with pytest.raises(UserError, match="no sha256"):
        open_tarball(
            KERNEL,
            KernelOptions(tarball=tarball, tarball_sha256=sha256),
            tmp_path,
            SilentProgress(),
        )


def test_missing_tarball_is_refused(tmp_path: Path) -> None:
    options = KernelOptions(tarball=tmp_path / "gone.tar.xz", tarball_sha256="0" * 64)
    with pytest.raises(UserError, match="no such file"):
        open_tarball(KERNEL, options, tmp_path, SilentProgress())


def test_release_that_replaces_removed_one_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = ["7.3.7"]
    monkeypatch.setattr(kernel_org, "is_removed", lambda _: True)
    monkeypatch.setattr(kernel_org, "newest_release", lambda _: newest[0])
    found = [find_release(KERNEL, tmp_path, SilentProgress())]
    newest[0] = "7.3.9"
    found.append(find_release(KERNEL, tmp_path, SilentProgress()))
    (record,) = (tmp_path / "sources").glob("*.json")
    then = record.stat().st_mtime - tarball_source.ASK_AGAIN_SECONDS - 1
    os.utime(record, (then, then))
    monkeypatch.setattr(kernel_org, "is_removed", lambda _: None)
    found.append(find_release(KERNEL, tmp_path, SilentProgress()))
    monkeypatch.setattr(kernel_org, "is_removed", lambda _: True)
    found.append(find_release(KERNEL, tmp_path, SilentProgress()))
    assert found == ["7.3.7", "7.3.7", "7.3.7", "7.3.9"]
