# SPDX-License-Identifier: GPL-2.0-only
"""The program behind Ubuntu's script, in a fake root."""

from pathlib import Path

import pytest

from fixtures.host.util.bpftool import find_bpftool
from fixtures.host.util.errors import UserError


def program(path: Path, content: bytes = b"\x7fELF") -> Path:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def find(root: Path) -> Path:
    """Find bpftool in a fake root."""
    return find_bpftool(str(root / "sbin"), (root / "lib/linux-tools", root / "lib"))


def test_program_on_path_is_used(tmp_path: Path) -> None:
    expected = program(tmp_path / "sbin/bpftool")
    program(tmp_path / "lib/linux-tools/9.9/bpftool")
    assert find(tmp_path) == expected


@pytest.mark.parametrize("script", [True, False])
def test_newest_program_behind_script_is_used(tmp_path: Path, script: bool) -> None:
    if script:
        program(tmp_path / "sbin/bpftool", b"#!/bin/sh\nexit 2\n")
    program(tmp_path / "lib/linux-tools/6.8.0-9-generic/bpftool")
    expected = program(tmp_path / "lib/linux-tools/6.8.0-31-generic/bpftool")
    program(tmp_path / "lib/linux-tools-6.5.0-10/bpftool")
    program(tmp_path / "lib/linux-tools/7.0.0-1-generic/bpftool", b"#!/bin/sh\n")
    assert find(tmp_path) == expected


def test_script_without_program_is_named(tmp_path: Path) -> None:
    program(tmp_path / "sbin/bpftool", b"#!/bin/sh\nexit 2\n")
    with pytest.raises(UserError, match=r"sbin/bpftool only starts .*: install linux-tools-gen"):
        find(tmp_path)
    with pytest.raises(UserError, match="install the package bpftool"):
        find(tmp_path / "empty")
