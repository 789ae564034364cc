# SPDX-License-Identifier: GPL-2.0-only
"""Debian's package: mirror, version, and the fallback for a removed version."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel.sources import debian
from fixtures.host.util import private_apt
from fixtures.host.util.errors import UserError
from fixtures.host.util.file_lock import try_exclusive_lock
from fixtures.host.util.private_apt import PrivateApt
from fixtures.host.util.subprocess_util import CommandError

MIRROR = "http://mirror.example/debian"
TARGETS = f"""\
Some Vendor\tstable\thttps://vendor.example/apt
Debian\tstable-security\thttp://security.example/debian-security
Debian\tstable\t{MIRROR}
"""
NEWER = "7.3.9-1~bpo13+1"
PINNED = "7.3.4-1~bpo13+1"


def madison(*versions: str) -> str:
    """Return the output of ``apt-cache madison``."""
    return "".join(
        f" linux-source-7.3 | {version} | {MIRROR} trixie-backports/main amd64 Packages\n"
        for version in versions
    )


class Machine:
    """A fake machine with apt."""

    def __init__(self) -> None:
        self.targets = TARGETS
        self.versions: tuple[str, ...] = (PINNED,)
        self.calls: list[list[str]] = []
        self.lines: list[str] = []
        self.fails: str | None = None

    def run(self, argv: Sequence[str | Path], **_: Any) -> "subprocess.CompletedProcess[str]":
        """Replace ``run``."""
        args = [str(arg) for arg in argv]
        self.calls.append(args)
        if self.fails in args:
            raise CommandError(args, 100, "", "W: old news\nE: no such host\n")
        out = {"indextargets": self.targets, "madison": madison(*self.versions)}
        return subprocess.CompletedProcess(args, 0, out.get(args[1], ""), "")

    def say(self, line: str) -> None:
        """Record the line."""
        self.lines.append(line)

    def task(self, name: str, total: float | None) -> Any:
        """Not used here."""
        raise NotImplementedError(name, total)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine whose archive has the pinned version."""
    fake = Machine()
    monkeypatch.setattr(debian, "run", fake.run)
    monkeypatch.setattr(private_apt, "run", fake.run)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    return fake


KERNEL = vm_profile.load_profile("base").kernel


def test_mirror_is_taken_from_machine(machine: Machine, tmp_path: Path) -> None:
    assert private_apt.debian_mirror() == MIRROR
    assert debian.find_package(KERNEL, tmp_path, machine)
    written = (tmp_path / "apt/trixie-backports/etc/sources.list").read_text()
    assert written.endswith(f" {MIRROR} trixie-backports main\n")


def test_apt_uses_private_state(machine: Machine, tmp_path: Path) -> None:
    debian.find_package(KERNEL, tmp_path, machine)
    settings = (tmp_path / "apt/trixie-backports/etc/apt.conf").read_text()
    for name in ("Dir::State", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        assert f'{name} "{tmp_path}' in settings
    assert 'AllowInsecureRepositories "false"' in settings


def test_pinned_version_is_preferred(machine: Machine, tmp_path: Path) -> None:
    machine.versions = (NEWER, PINNED)
    source = debian.find_package(KERNEL, tmp_path, machine)
    assert source
    assert source.version == PINNED
    assert source.describe()["patched_by"] == "Debian"
    assert not any("no longer has" in line for line in machine.lines)


def test_removed_version_falls_back_to_newest_of_series(machine: Machine, tmp_path: Path) -> None:
    machine.versions = ("7.10.1-1", NEWER, "7.3.7-1~bpo13+1")
    source = debian.find_package(KERNEL, tmp_path, machine)
    assert source
    assert source.version == NEWER
    assert f"using {NEWER}" in machine.lines[-1]


def test_found_version_is_recorded(machine: Machine, tmp_path: Path) -> None:
    first = debian.find_package(KERNEL, tmp_path, machine)
    machine.calls.clear()
    assert debian.find_package(KERNEL, tmp_path, machine) == first
    assert not machine.calls
    (record,) = (tmp_path / "sources").glob("*.json")
    assert json.loads(record.read_text()) == {"version": PINNED}


def age_record(tmp_path: Path) -> None:
    """Make the record of the chosen version older than the time after which apt is asked again."""
    (record,) = (tmp_path / "sources").glob("*.json")
    then = record.stat().st_mtime - debian.ASK_AGAIN_SECONDS - 1
    os.utime(record, (then, then))


@pytest.mark.parametrize(
    ("recorded", "in_archive", "expected"),
    [
        (PINNED, (NEWER,), PINNED),
        ("7.3.7-1~bpo13+1", (NEWER,), NEWER),
        ("7.3.7-1~bpo13+1", (NEWER, PINNED), PINNED),
    ],
    ids=["pinned-stays", "newer-is-used", "pinned-is-back"],
)
def test_version_that_replaces_pinned_one_is_looked_up_again(
    machine: Machine, tmp_path: Path, recorded: str, in_archive: tuple[str, ...], expected: str
) -> None:
    machine.versions = (recorded,)
    debian.find_package(KERNEL, tmp_path, machine)
    machine.versions = in_archive
    unchanged = debian.find_package(KERNEL, tmp_path, machine)
    assert unchanged
    assert unchanged.version == recorded
    age_record(tmp_path)
    source = debian.find_package(KERNEL, tmp_path, machine)
    assert source
    assert source.version == expected


def test_recorded_version_is_used_without_network(machine: Machine, tmp_path: Path) -> None:
    machine.versions = (NEWER,)
    first = debian.find_package(KERNEL, tmp_path, machine)
    age_record(tmp_path)
    machine.fails = "update"
    assert debian.find_package(KERNEL, tmp_path, machine) == first


def test_version_removed_before_download_is_looked_up_by_next_run(
    machine: Machine, tmp_path: Path
) -> None:
    source = debian.find_package(KERNEL, tmp_path, machine)
    assert source
    machine.versions = (NEWER,)
    machine.fails = "download"
    with pytest.raises(UserError, match=r"no longer has .*: run this again"):
        source._download(PrivateApt(tmp_path / "apt", KERNEL.suite), tmp_path)
    again = debian.find_package(KERNEL, tmp_path, machine)
    assert again
    assert again.version == NEWER


def test_apt_runs_under_a_lock(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: dict[str, bool] = {}

    def run(argv: Sequence[str | Path], **named: Any) -> "subprocess.CompletedProcess[str]":
        if "APT_CONFIG" in (named.get("env") or {}):
            with try_exclusive_lock(tmp_path / "apt" / f"{KERNEL.suite}.lock") as taken:
                free[str(argv[1])] = taken
        return machine.run(argv, **named)

    monkeypatch.setattr(private_apt, "run", run)
    source = debian.find_package(KERNEL, tmp_path, machine)
    assert source
    (tmp_path / "linux.deb").touch()
    source._download(PrivateApt(tmp_path / "apt", KERNEL.suite), tmp_path)
    assert free == {"update": False, "madison": False, "download": False}


def test_missing_series_is_an_error(machine: Machine, tmp_path: Path) -> None:
    machine.versions = ("7.30.1-1",)
    with pytest.raises(UserError, match=r"no linux-source-7\.3 of series 7\.3\.x"):
        debian.find_package(KERNEL, tmp_path, machine)


def test_machine_without_debian_mirror_has_no_source(machine: Machine, tmp_path: Path) -> None:
    machine.targets = "Ubuntu\tnoble\thttp://mirror.example/ubuntu\n"
    assert debian.find_package(KERNEL, tmp_path, machine) is None


def test_unwritable_cache_is_named_first(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to.*FLOWMAP_CACHE"):
        debian.find_package(KERNEL, tmp_path / "file", machine)
    assert not machine.lines


def test_apt_error_is_reported_in_one_line(machine: Machine, tmp_path: Path) -> None:
    machine.fails = "update"
    with pytest.raises(UserError, match="E: no such host") as caught:
        debian.find_package(KERNEL, tmp_path, machine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("7.3.4-1~bpo13+1", "7.3.4"), ("1:7.3-2", "7.3"), ("7.3~rc4-1~exp1", "7.3~rc4")],
)
def test_upstream_version_has_no_epoch_and_revision(version: str, upstream: str) -> None:
    assert debian.upstream_version(version) == upstream
