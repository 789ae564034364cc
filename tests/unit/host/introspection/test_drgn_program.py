# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel lies, and what drgn is told of it."""

from pathlib import Path

import pytest

from fixtures.host.introspection.drgn_program import Place, Unavailable, build, vmcoreinfo

# A kernel linked at the usual place, whose addresses moved by 0x2e000000, loaded at 80 MiB.
LINKED_AT = 0xFFFFFFFF81000000
PLACE = Place(text=0xFFFFFFFFAF000000, code=0x05000000)


def test_physical_address_of_the_image() -> None:
    assert PLACE.physical(PLACE.text) == PLACE.code
    assert PLACE.physical(PLACE.text + 0x102D000) == PLACE.code + 0x102D000
    # Loaded below where it thinks it is, which a kernel may be.
    assert PLACE.phys_base == -0x2A000000


def test_description_for_drgn() -> None:
    lines = vmcoreinfo(PLACE, LINKED_AT, 0xFFFFFFFF8202D000, True).splitlines()
    said = dict(line.split("=") for line in lines)
    assert said["KERNELOFFSET"] == "2e000000"
    assert said["SYMBOL(swapper_pg_dir)"] == "ffffffffb002d000"
    assert said["NUMBER(phys_base)"] == str(-0x2A000000)
    assert said["NUMBER(pgtable_l5_enabled)"] == "1"


def test_kernel_without_debug_information_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="vmlinux is missing or has no DWARF"):
        build(tmp_path / "vmlinux", [], PLACE, [(0, 1)], lambda _address, count: bytes(count))
