# SPDX-License-Identifier: GPL-2.0-only
"""What is delivered to the guest: the suite, the modules, and nothing of this machine."""

import getpass
import tarfile
from pathlib import Path

import pytest

from fixtures.host.paths import ROOT
from fixtures.host.plugin.payload import write_payload


@pytest.fixture
def members(tmp_path: Path) -> dict[str, tarfile.TarInfo]:
    modules = tmp_path / "lib/modules/7.3.4"
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.dep").touch()
    (modules / "kernel/nf_flow_table.ko").touch()
    (modules / "build").symlink_to("/home/somebody/linux")
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "xdp.bpf.o").touch()
    engine = tmp_path / "engine"
    engine.touch(0o755)
    write_payload(tmp_path / "payload.tar", [ROOT / "selftests"], modules, objects, engine)
    with tarfile.open(tmp_path / "payload.tar") as archive:
        return {member.name: member for member in archive.getmembers()}


def test_everything_is_where_the_runner_expects_it(members: dict[str, tarfile.TarInfo]) -> None:
    wanted = {
        "suite/pyproject.toml",
        "suite/fixtures/wire.py",
        "suite/fixtures/guest/serve.py",
        "suite/selftests/__init__.py",
        "suite/bpf/xdp.bpf.o",
        "suite/engine/engine",
        "modules/modules.dep",
        "modules/kernel/nf_flow_table.ko",
    }
    assert wanted <= set(members)
    assert members["suite/engine/engine"].mode & 0o111


def test_nothing_of_the_host_is_in_it(members: dict[str, tarfile.TarInfo]) -> None:
    assert not [name for name in members if "fixtures/host" in name or name.endswith("conftest.py")]
    assert not [member for member in members.values() if member.issym() or member.uid]
    assert not [member for member in members.values() if member.uname == getpass.getuser()]
