# SPDX-License-Identifier: GPL-2.0-only
"""What fails half way, at each of its allocations in turn, leaves nothing behind."""

import errno
import os

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import faults, flowtable, modules
from fixtures.guest.plugin import Namespaces
from fixtures.guest.refusal import refused

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

    attempts = faults.each(create, lambda: modules.await_unreferenced(flowmap_module))
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

    attempts = faults.each(create, nothing_is_left)
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
        attempts = faults.each(load, slot_is_free)
    refusals = [attempt for attempt in attempts if attempt.errno]
    assert len(refusals) >= FEW
    assert errno.ENOMEM in {attempt.errno for attempt in refusals}
    modules.load_file(path)
    os.close(bpf.flowmap_create())
