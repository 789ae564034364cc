# SPDX-License-Identifier: GPL-2.0-only
"""What fails half way, at each of its allocations in turn, leaves nothing behind."""

import errno
import os
import struct

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import fault_injection, modules
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.fixtures import Flowmap, Namespaces, require_faults

ENOTSUPP = 524
"""include/linux/errno.h; not for user space, and yet seen there."""
FEW = 3
"""Fewer failing allocations than this would mean that the injection does not work."""


@pytest.fixture(autouse=True)
def _fault_injection() -> None:
    require_faults()


@pytest.mark.clause("MM-5", "V0-4")
@pytest.mark.deadline(120)
def test_map_creation_with_each_allocation_failing(flowmap_module: str) -> None:
    bpf.flowmap_type()  # read from the kernel's types once, before anything may fail

    def create() -> None:
        os.close(bpf.flowmap_create())

    attempts = fault_injection.each(create, lambda: modules.await_unreferenced(flowmap_module))
    refusals = [attempt for attempt in attempts if attempt.errno]
    assert len(refusals) >= FEW
    assert {attempt.errno for attempt in refusals} == {errno.ENOMEM}
    modules.unload(flowmap_module)


@pytest.mark.clause("SN-7", "SN-8")
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("flowtable_modules")
def test_snoop_table_creation_with_each_allocation_failing(namespace: Namespaces) -> None:
    inside = namespace("fm-fail")
    # What is not the snoop table's own is there already.
    flowtable.commit([flowtable.new_table(flowtable.INET, "spy")], inside)

    def create() -> None:
        flowtable.create_snoop("spy", "all", inside)

    def nothing_is_left() -> None:
        if flowtable.flowtables(inside):
            flowtable.drop("spy", "all", inside)
        assert flowtable.flowtables(inside) == []

    attempts = fault_injection.each(create, nothing_is_left)
    refusals = [attempt for attempt in attempts if attempt.errno]
    # With which errno is for nf_tables and the socket to say; ENOMEM is among them.
    assert len(refusals) >= FEW
    assert errno.ENOMEM in {attempt.errno for attempt in refusals}


@pytest.mark.clause("MM-2", "MM-6")
@pytest.mark.deadline(300)
def test_module_load_with_each_allocation_failing(without_module: None) -> None:  # noqa: ARG001
    modules.probe(modules.FLOWTABLE)
    path = modules.file_of(modules.FLOWMAP)
    bpf.flowmap_type()

    def load() -> None:
        modules.load_file(path)
        modules.unload(modules.FLOWMAP)

    def slot_is_free() -> None:
        with refused(errno.EINVAL):
            bpf.flowmap_create()

    with modules.autoload_disabled():
        attempts = fault_injection.each(load, slot_is_free)
    refusals = [attempt for attempt in attempts if attempt.errno]
    assert len(refusals) >= FEW
    assert errno.ENOMEM in {attempt.errno for attempt in refusals}
    modules.load_file(path)
    os.close(bpf.flowmap_create())


@pytest.mark.clause("MM-5", "MM-4")
@pytest.mark.deadline(300)
def test_program_load_with_each_allocation_failing(
    flowmap_module: str, make_flowmap: Flowmap
) -> None:
    fd = make_flowmap()
    program = _asking(fd)
    os.close(prog_syscalls.prog_load(prog_syscalls.PROG_TYPE_XDP, program))
    held = modules.references(flowmap_module)
    maps = bpf.identities(bpf_attr.Command.MAP_GET_NEXT_ID)

    def load() -> None:
        os.close(prog_syscalls.prog_load(prog_syscalls.PROG_TYPE_XDP, program))

    def nothing_has_changed() -> None:
        def settled() -> bool:
            programs = bpf.identities(bpf_attr.Command.PROG_GET_NEXT_ID)
            return programs == [] and modules.references(flowmap_module) == held

        wait_for("the program to be gone", settled)
        assert bpf.identities(bpf_attr.Command.MAP_GET_NEXT_ID) == maps
        assert bpf.found(fd, uapi.Key(l3proto=2)) is None

    attempts = fault_injection.each(load, nothing_has_changed)
    refusals = [attempt.errno for attempt in attempts if attempt.errno]
    assert len(refusals) >= FEW
    assert errno.ENOMEM in refusals
    print(sorted(set(refusals)), refusals)
    assert set(refusals) <= {errno.ENOMEM, errno.EINVAL, ENOTSUPP}
    os.close(fd)
    modules.await_unreferenced(flowmap_module)
    modules.unload(flowmap_module)


def _asking(fd: int) -> bytes:
    """A program that looks a key of zeros up in a map, and passes the packet."""
    size = -(-uapi.KEY_SIZE // 8) * 8
    # *(u64 *)(fp - place) = 0
    clear = b"".join(struct.pack("<BBhi", 0x7A, 10, -place, 0) for place in range(8, size + 1, 8))
    key = struct.pack("<BBhiBBhi", 0xBF, 0xA2, 0, 0, 0x07, 2, 0, -size)  # r2 = fp - size
    this = struct.pack("<BBhi", 0x18, 0x11, 0, fd) + bytes(8)  # r1 = map
    call = struct.pack("<BBhi", 0x85, 0, 0, 1)  # bpf_map_lookup_elem
    leave = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # return XDP_PASS
    return clear + key + this + call + leave
