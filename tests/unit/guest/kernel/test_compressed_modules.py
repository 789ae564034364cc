# SPDX-License-Identifier: GPL-2.0-only
"""Compressed modules: unpacked once, and refused if damaged."""

import gzip
import lzma
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.guest.kernel import compressed_modules, modules
from fixtures.guest.kernel.compressed_modules import SUFFIXES, unpacked
from fixtures.host.util.zstd_compat import zstd

CONTENT = b"\x7fELF" + b"module" * 1000
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".ko.gz": gzip.compress,
    ".ko.xz": lzma.compress,
    ".ko.zst": zstd.compress,
}


def test_every_suffix_is_tested() -> None:
    assert set(PACK) == set(SUFFIXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_module_is_unpacked_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"nf_flow_table{suffix}"
    path.write_bytes(PACK[suffix](CONTENT))
    found = unpacked(path, tmp_path / "unpacked")
    assert found.name == "nf_flow_table.ko"
    assert found.read_bytes() == CONTENT
    assert unpacked(path, tmp_path / "unpacked").stat().st_ino == found.stat().st_ino
    left = {entry.name for entry in (tmp_path / "unpacked").glob("*")}
    assert left == (set() if suffix == ".ko" else {"nf_flow_table.ko"})


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
@pytest.mark.parametrize("cut", [0, 3, -8])
def test_damaged_module_is_refused(tmp_path: Path, suffix: str, cut: int) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](CONTENT)[:cut] or b"no module")
    with pytest.raises(ValueError, match=r"a\.ko"):
        unpacked(path, tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize("file", ["nf_flow_table.ko.xz", "nf-flow-table.ko.zst"])
def test_module_path_finds_compressed_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    folder = tmp_path / platform.release() / "kernel/net"
    folder.mkdir(parents=True)
    (folder / file).touch()
    monkeypatch.setattr(modules, "Path", lambda *parts: _below(tmp_path, *parts))
    monkeypatch.setattr(compressed_modules, "unpacked", lambda path: path)
    assert modules.module_path("nf_flow_table") == folder / file
    with pytest.raises(FileNotFoundError):
        modules.module_path("other")


def _below(root: Path, *parts: str) -> Path:
    """Return a path with /lib/modules replaced by a folder of the test."""
    return Path(*(str(root) if part == "/lib/modules" else part for part in parts))
