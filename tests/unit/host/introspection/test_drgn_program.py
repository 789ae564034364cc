# SPDX-License-Identifier: GPL-2.0-only
"""Load address of a kernel, and the VMCOREINFO made from it."""

from pathlib import Path

import pytest

from fixtures.host.introspection.drgn_program import (
    DebugInfoMissing,
    KernelAddress,
    make_program,
    vmcoreinfo,
)

# A kernel linked at the default address, relocated by 0x2e000000, loaded at 80 MiB.
LINKED_AT = 0xFFFFFFFF81000000
LOADED_AT = KernelAddress(text=0xFFFFFFFFAF000000, code=0x05000000)


def test_physical_address_in_kernel_image() -> None:
    assert LOADED_AT.physical(LOADED_AT.text) == LOADED_AT.code
    assert LOADED_AT.physical(LOADED_AT.text + 0x102D000) == LOADED_AT.code + 0x102D000
    # Loaded below its link address: phys_base is negative.
    assert LOADED_AT.phys_base == -0x2A000000


def test_vmcoreinfo_has_relocated_addresses() -> None:
    lines = vmcoreinfo(LOADED_AT, LINKED_AT, 0xFFFFFFFF8202D000, True).splitlines()
    fields = dict(line.split("=") for line in lines)
    assert fields["KERNELOFFSET"] == "2e000000"
    assert fields["SYMBOL(swapper_pg_dir)"] == "ffffffffb002d000"
    assert fields["NUMBER(phys_base)"] == str(-0x2A000000)
    assert fields["NUMBER(pgtable_l5_enabled)"] == "1"


def test_make_program_without_dwarf_raises(tmp_path: Path) -> None:
    with pytest.raises(DebugInfoMissing, match="vmlinux is missing or has no DWARF"):
        make_program(
            tmp_path / "vmlinux", [], LOADED_AT, [(0, 1)], lambda _address, count: bytes(count)
        )
