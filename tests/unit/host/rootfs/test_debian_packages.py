# SPDX-License-Identifier: GPL-2.0-only
"""Unpacked packages of another architecture: programs, libraries, busybox's applets."""

import shutil
from pathlib import Path

import pytest

from fixtures.host.arch.architecture import S390X, X86_64
from fixtures.host.rootfs import init_script
from fixtures.host.rootfs.debian_packages import PackageRoot, busybox_applets
from fixtures.host.util.errors import UserError
from fixtures.host.util.subprocess_util import run


def test_program_is_found_in_every_folder(tmp_path: Path) -> None:
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/tc").touch()
    assert PackageRoot(tmp_path, S390X).program("tc") == tmp_path / "sbin/tc"


def test_library_link_is_followed_inside_the_packages(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/s390x-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libx.so.1.2").touch()
    (folder / "libx.so.1").symlink_to("libx.so.1.2")
    assert PackageRoot(tmp_path, S390X).library("libx.so.1") == folder / "libx.so.1.2"


def test_absolute_link_never_names_a_file_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    with pytest.raises(UserError, match="is a link out of"):
        PackageRoot(tmp_path, S390X).program("sh")


def test_missing_program_names_the_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no package of s390x in contents.toml has the program ip"):
        PackageRoot(tmp_path, S390X).program("ip")


def test_needed_libraries_are_those_of_the_loader() -> None:
    """The host's own root serves as unpacked packages."""
    program = shutil.which("readelf")
    assert program
    found = PackageRoot(Path("/"), X86_64).needed_libraries([Path(program)])
    assert "libc.so.6" in found


def test_busybox_applets_are_read_from_its_data() -> None:
    busybox = shutil.which("busybox")
    assert busybox
    listed = run([busybox, "--list"]).stdout.split()
    assert busybox_applets(Path(busybox)) == listed


def test_file_without_applets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF")
    with pytest.raises(UserError, match="has no list of applets"):
        busybox_applets(tmp_path / "x")


def test_init_script_is_valid_shell(tmp_path: Path) -> None:
    (tmp_path / "init").write_text(init_script.SCRIPT)
    run(["busybox", "sh", "-n", tmp_path / "init"])


def test_init_script_decodes_the_agent_script(tmp_path: Path) -> None:
    """The line that reads virtme.exec, on a command line that has it in backticks."""
    line = next(each for each in init_script.SCRIPT.splitlines() if "virtme.exec" in each)
    (tmp_path / "cmdline").write_text("quiet virtme.exec=`ZWNobyBoaQo=`\n")
    line = line.replace("/proc/cmdline", f"{tmp_path}/cmdline")
    run(["busybox", "sh", "-c", line.replace("/run/agent.sh", f"{tmp_path}/agent.sh")])
    assert (tmp_path / "agent.sh").read_text() == "echo hi\n"
