# SPDX-License-Identifier: GPL-2.0-only
"""Finding the kernel in a core, with synthetic ELF files."""

import struct
from pathlib import Path

import pytest

from fixtures.host.introspection.core_file import find_kernel, open_elf
from fixtures.host.util.errors import UserError

TEXT = 0xFFFFFFFF81000000
BANNER = b"Linux version 7.3.4 (flowmap@suite)\0"
SYMBOLS = {"_text": TEXT, "linux_banner": TEXT + 0x1000, "phys_base": TEXT + 0x2000}
CODE = 3 << 21  # the physical address of the kernel in the core
MOVED_TEXT = 0xFFFFFFFFB8000000


def write_elf(path: Path, segments: list[tuple[int, int, bytes]]) -> Path:
    """Write an ELF file with segments given by virtual address, physical address and content."""
    offset = 64 + 56 * len(segments)
    headers, contents = b"", b""
    for virtual, physical, content in segments:
        place = offset + len(contents)
        size = len(content)
        headers += struct.pack("<IIQQQQQQ", 1, 7, place, virtual, physical, size, size, 1)
        contents += content
    ident = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    path.write_bytes(ident + header + headers + contents)
    return path


@pytest.fixture
def vmlinux(tmp_path: Path) -> Path:
    return write_elf(tmp_path / "vmlinux", [(TEXT, 0x1000000, bytes(0x1000) + BANNER + bytes(256))])


def _memory(banner: bytes = BANNER) -> bytes:
    memory = bytearray(4 << 21)
    memory[CODE + 0x1000 : CODE + 0x1000 + len(banner)] = banner
    phys_base = CODE - (MOVED_TEXT - 0xFFFFFFFF80000000)
    memory[CODE + 0x2000 : CODE + 0x2008] = phys_base.to_bytes(8, "little", signed=True)
    return bytes(memory)


def test_kernel_moved_by_kaslr_is_found(tmp_path: Path, vmlinux: Path) -> None:
    core = open_elf(write_elf(tmp_path / "core", [(0, 0, _memory())]))
    found = find_kernel(core, open_elf(vmlinux), SYMBOLS)
    assert (found.text, found.code) == (MOVED_TEXT, CODE)
    assert core.ranges() == [(0, 4 << 21)]


def test_core_of_another_build_is_refused(tmp_path: Path, vmlinux: Path) -> None:
    other = _memory(BANNER.replace(b"suite", b"other"))
    core = open_elf(write_elf(tmp_path / "core", [(0, 0, other)]))
    with pytest.raises(UserError, match="another build"):
        find_kernel(core, open_elf(vmlinux), SYMBOLS)


def test_read_across_end_of_segment_raises(tmp_path: Path) -> None:
    core = open_elf(write_elf(tmp_path / "core", [(0, 0x100, b"abc"), (0, 0x200, b"def")]))
    assert core.read_physical(0x201, 2) == b"ef"
    with pytest.raises(LookupError, match="0x102"):
        core.read_physical(0x102, 2)


def test_file_that_is_no_elf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(b"text" * 30)
    with pytest.raises(UserError, match="not an ELF file"):
        open_elf(tmp_path / "core")
    with pytest.raises(UserError, match="No such file"):
        open_elf(tmp_path / "missing")
