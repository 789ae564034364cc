# SPDX-License-Identifier: GPL-2.0-only
"""Debian's configuration: unpacked once, of the version of the sources, mistakes in one line."""

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.config.vm_profile import KernelProfile
from fixtures.host.kernel.sources import debian_config
from fixtures.host.kernel.sources.debian import DebianSource
from fixtures.host.util.errors import UserError
from fixtures.host.util.progress import Progress, SilentProgress

KERNEL = replace(
    vm_profile.load_profile("distro").kernel, debian_config="linux-config-7.3/config.one.xz"
)
VERSION = "7.3.4-1~bpo13+1"


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the packages that were unpacked, from an archive with one configuration."""
    found: list[str] = []

    def find_package(profile: KernelProfile, cache: Path, _: Progress) -> DebianSource:
        return DebianSource(profile.package, profile.suite, VERSION, profile.version, cache)

    def unpack(source: DebianSource, folder: Path) -> None:
        found.append(f"{source.package}={source.version}")
        path = folder / "usr/src/linux-config-7.3/config.one.xz"
        path.parent.mkdir(parents=True)
        path.write_bytes(lzma.compress(b"CONFIG_A=m\n"))

    monkeypatch.setattr(debian_config, "find_package", find_package)
    monkeypatch.setattr(DebianSource, "unpack_deb", unpack)
    return found


def test_configuration_is_unpacked_once(unpacked: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        found = debian_config.read_debian_config(KERNEL, tmp_path, SilentProgress())
        assert found == (f"linux-config-7.3_{VERSION}", "CONFIG_A=m\n")
    assert unpacked == [f"linux-config-7.3={VERSION}"]


def test_profile_without_debian_config_needs_no_package(
    unpacked: list[str], tmp_path: Path
) -> None:
    kernel = vm_profile.load_profile("base").kernel
    assert debian_config.read_debian_config(kernel, tmp_path, SilentProgress()) is None
    assert unpacked == []


@pytest.mark.usefixtures("unpacked")
def test_absent_file_is_explained_by_those_that_exist(tmp_path: Path) -> None:
    kernel = replace(KERNEL, debian_config="linux-config-7.3/config.two.xz")
    with pytest.raises(UserError, match=r"has no config\.two\.xz; it has: config\.one\.xz"):
        debian_config.read_debian_config(kernel, tmp_path, SilentProgress())


def test_machine_without_debian_mirror_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian_config, "find_package", lambda *_: None)
    with pytest.raises(UserError, match="names no Debian mirror"):
        debian_config.read_debian_config(KERNEL, tmp_path, SilentProgress())
