# SPDX-License-Identifier: GPL-2.0-only
"""What fails half way, at each of its allocations in turn, leaves nothing behind."""

import errno
import os
import struct

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import faults, flowtable, modules
from fixtures.guest.bpf_syscall import Command
from fixtures.guest.plugin import Flowmap, Namespaces
from fixtures.guest.refusal import refused
from fixtures.guest.wait import wait_for

FEW = 3
"""Fewer failing allocations than this would mean that the injection does not work."""


@pytest.fixture(autouse=True)
def _fault_injection() -> None:
    if why := faults.missing():
        pytest.skip(why)


@pytest.mark.clause("MM-5", "V0-4")
@pytest.mark.deadline(120)
def test_map_creation_with_each_allocation_failing(flowmap_module: str) -> None:
    bpf.flowmap_type()  # read from the kernel's types once, before anything may fail

    def create() -> None:
        os.close(bpf.flowmap_create())

    def nothing_is_held() -> None:
        wait_for("the module to be free", lambda: modules.references(flowmap_module) == 0)

    attempts = faults.each(create, nothing_is_held)
    refused = [attempt for attempt in attempts if attempt.errno]
    assert len(refused) >= FEW
    assert {attempt.errno for attempt in refused} == {errno.ENOMEM}
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

    attempts = faults.each(create, nothing_is_left)
    refused = [attempt for attempt in attempts if attempt.errno]
    # With which errno is for nf_tables and the socket to say; ENOMEM is among them.
    assert len(refused) >= FEW
    assert errno.ENOMEM in {attempt.errno for attempt in refused}


def _program(fd: int) -> bytes:
    """Look an empty key up in a map, and leave."""

    def instruction(code: int, registers: int, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("=BBhi", code, registers, offset, value)

    words = range(8, 96, 8)  # the key has 84 bytes
    return b"".join(
        [
            *(instruction(0x7A, 0x0A, -word) for word in words),  # *(u64 *)(r10 - word) = 0
            instruction(0x18, 0x11, 0, fd),  # r1 = the map
            instruction(0, 0),
            instruction(0xBF, 0xA2),  # r2 = r10
            instruction(0x07, 0x02, 0, -words[-1]),  # r2 -= 88
            instruction(0x85, 0, 0, 1),  # bpf_map_lookup_elem()
            instruction(0xB7, 0, 0, 2),  # r0 = XDP_PASS
            instruction(0x95, 0),  # exit
        ]
    )


@pytest.mark.clause("MM-5", "MM-4")
@pytest.mark.deadline(120)
def test_program_load_with_each_allocation_failing(
    flowmap_module: str, make_flowmap: Flowmap
) -> None:
    fd = make_flowmap()
    code = _program(fd)
    before = bpf.identities(Command.PROG_GET_NEXT_ID)

    def load() -> None:
        os.close(bpf.prog_load(bpf.PROG_TYPE_XDP, code))

    def nothing_is_left() -> None:
        wait_for(
            "the program to be gone", lambda: bpf.identities(Command.PROG_GET_NEXT_ID) == before
        )
        assert modules.references(flowmap_module) == 1

    attempts = faults.each(load, nothing_is_left)
    refusals = [attempt for attempt in attempts if attempt.errno]
    assert len(refusals) >= FEW
    assert {attempt.errno for attempt in refusals} == {errno.ENOMEM}
    os.close(fd)
    # No attempt has kept the map.
    wait_for("the module to be free", lambda: modules.references(flowmap_module) == 0)


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
        attempts = faults.each(load, slot_is_free)
    refusals = [attempt for attempt in attempts if attempt.errno]
    assert len(refusals) >= FEW
    assert errno.ENOMEM in {attempt.errno for attempt in refusals}
    modules.load_file(path)
    os.close(bpf.flowmap_create())
