# SPDX-License-Identifier: GPL-2.0-only
"""Payload: has the suite and the kernel modules, and nothing of the host."""

import getpass
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.host.execution.payload import MODULES_ARCHIVE, TESTS_ARCHIVE, write_payload
from fixtures.host.util.paths import ROOT


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Function that writes a payload into a directory of this name."""
    modules = tmp_path / "lib/modules/7.3.4"
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.dep").touch()
    (modules / "kernel/nf_flow_table.ko").touch()
    (modules / "build").symlink_to("/home/user/linux")
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "xdp.bpf.o").touch()
    engine = tmp_path / "engine"
    engine.touch(0o755)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "bpftool").touch(0o755)

    def payload(name: str) -> Path:
        folder = tmp_path / name
        selftests = [ROOT / "selftests"]
        write_payload(folder, selftests, modules, objects, engine, tree_tools=tools)
        return folder

    return payload


def _members(archive: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive) as members:
        return {member.name: member for member in members.getmembers()}


@pytest.fixture
def members(write: Callable[[str], Path]) -> dict[str, tarfile.TarInfo]:
    folder = write("payload")
    return _members(folder / TESTS_ARCHIVE) | _members(folder / MODULES_ARCHIVE)


def test_payload_has_paths_that_the_agent_expects(members: dict[str, tarfile.TarInfo]) -> None:
    wanted = {
        "suite/pyproject.toml",
        "suite/fixtures/wire.py",
        "suite/fixtures/guest/runtime/pytest_server.py",
        "suite/selftests/__init__.py",
        "suite/bpf/xdp.bpf.o",
        "suite/engine/engine",
        "suite/tree_tools/bpftool",
        "modules/modules.dep",
        "modules/kernel/nf_flow_table.ko",
    }
    assert wanted <= set(members)
    assert members["suite/engine/engine"].mode & 0o111


def test_payload_has_nothing_of_the_host(members: dict[str, tarfile.TarInfo]) -> None:
    assert not [name for name in members if "fixtures/host" in name or name.endswith("conftest.py")]
    assert not [member for member in members.values() if member.issym() or member.uid]
    assert not [member for member in members.values() if member.uname == getpass.getuser()]


def test_payload_has_modules_in_their_own_archive(write: Callable[[str], Path]) -> None:
    """Other modules do not change the tests archive, so that the cached S1 stays valid."""
    folder = write("payload")
    assert not [name for name in _members(folder / TESTS_ARCHIVE) if name.startswith("modules")]
    assert all(name.startswith("modules") for name in _members(folder / MODULES_ARCHIVE))


def test_payload_with_same_contents_is_byte_identical(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    """Time stamps do not matter: the hash of the archive is part of S1's cache key."""
    first = write("first")
    os.utime(tmp_path / "objects/xdp.bpf.o", (1, 1))
    again = write("again")
    for name in (TESTS_ARCHIVE, MODULES_ARCHIVE):
        assert (first / name).read_bytes() == (again / name).read_bytes()
