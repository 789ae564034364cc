# SPDX-License-Identifier: GPL-2.0-only
"""Creation of maps, snoop tables, modules and programs with each nth allocation failing."""

import errno
import os

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import instructions as insn
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.instructions import Instruction
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import fault_injection, modules
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns, require_fault_injection

ENOTSUPP = 524
"""An internal errno of include/linux/errno.h that the kernel returns to user space here."""
_FRAME_POINTER = 10
_MAP_LOOKUP_ELEM = 1  # enum bpf_func_id
_XDP_PASS = 2
MIN_FAILING_ALLOCATIONS = 3
"""With fewer failures than this the fault injection does not work."""


@pytest.fixture(autouse=True)
def _fault_injection() -> None:
    require_fault_injection()


@pytest.mark.clause("MM-5.2", "V0-4")
@pytest.mark.deadline(120)
def test_map_create_with_nth_alloc_failing_leaks_no_ref(flowmap_loaded: str) -> None:
    """Map creation with its nth allocation failing gives ENOMEM and leaves no module reference."""
    bpf.flowmap_type()  # cached before any allocation may fail

    def create() -> None:
        os.close(bpf.flowmap_create())

    attempts = fault_injection.fail_each_allocation(
        create, lambda: modules.wait_until_unreferenced(flowmap_loaded)
    )
    failures = [attempt for attempt in attempts if attempt.errno]
    assert len(failures) >= MIN_FAILING_ALLOCATIONS
    assert {attempt.errno for attempt in failures} == {errno.ENOMEM}
    modules.unload(flowmap_loaded)


@pytest.mark.clause("SN-8.3")
@pytest.mark.deadline(120)
@pytest.mark.usefixtures("flowtable_modules")
def test_snoop_table_create_with_nth_alloc_failing_leaves_no_table(make_netns: MakeNetns) -> None:
    """Snoop table creation with its nth allocation failing leaves no flowtable behind."""
    ns = make_netns("fm-fail")
    # Create the nft table first: only the snoop table's own allocations are to fail.
    flowtable.commit_batch([flowtable.new_table(flowtable.INET, "spy")], ns)

    def create() -> None:
        flowtable.create_snoop_table("spy", "all", ns)

    def assert_no_flowtable() -> None:
        if flowtable.list_flowtables(ns):
            flowtable.drop_flowtable("spy", "all", ns)
        assert flowtable.list_flowtables(ns) == []

    attempts = fault_injection.fail_each_allocation(create, assert_no_flowtable)
    failures = [attempt for attempt in attempts if attempt.errno]
    # nf_tables and the netlink socket choose the errno; ENOMEM is among them.
    assert len(failures) >= MIN_FAILING_ALLOCATIONS
    assert errno.ENOMEM in {attempt.errno for attempt in failures}


@pytest.mark.clause("MM-6.1", "MM-6.2")
@pytest.mark.deadline(300)
def test_module_load_with_nth_alloc_failing_frees_slot(flowmap_unloaded: None) -> None:  # noqa: ARG001
    """Module load with its nth allocation failing leaves the type's slot free for a later load."""
    modules.modprobe(modules.FLOWTABLE_MODULE)
    path = modules.module_path(modules.FLOWMAP_MODULE)
    bpf.flowmap_type()

    def load() -> None:
        modules.load_file(path)
        modules.unload(modules.FLOWMAP_MODULE)

    def assert_slot_free() -> None:
        with expect_errno(errno.EINVAL):
            bpf.flowmap_create()

    with modules.autoload_disabled():
        attempts = fault_injection.fail_each_allocation(load, assert_slot_free)
    failures = [attempt for attempt in attempts if attempt.errno]
    assert len(failures) >= MIN_FAILING_ALLOCATIONS
    assert errno.ENOMEM in {attempt.errno for attempt in failures}
    modules.load_file(path)
    os.close(bpf.flowmap_create())


@pytest.mark.clause("MM-4.8")
@pytest.mark.deadline(300)
def test_prog_load_with_nth_alloc_failing_leaks_no_ref(
    flowmap_loaded: str, make_flowmap: MakeFlowmap
) -> None:
    """Program load with its nth allocation failing leaks no reference to the map it uses."""
    fd = make_flowmap()
    program = _lookup_program(fd)
    os.close(prog_syscalls.prog_load(prog_syscalls.PROG_TYPE_XDP, program))
    references_before = modules.refcount(flowmap_loaded)
    map_ids_before = bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)

    def load() -> None:
        os.close(prog_syscalls.prog_load(prog_syscalls.PROG_TYPE_XDP, program))

    def assert_nothing_leaked() -> None:
        def program_freed() -> bool:
            programs = bpf.list_ids(bpf_attr.Command.PROG_GET_NEXT_ID)
            return programs == [] and modules.refcount(flowmap_loaded) == references_before

        wait_for("the program to be freed", program_freed)
        assert bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID) == map_ids_before
        assert bpf.lookup_or_none(fd, uapi.Key(l3proto=2)) is None

    attempts = fault_injection.fail_each_allocation(load, assert_nothing_leaked)
    failures = [attempt.errno for attempt in attempts if attempt.errno]
    assert len(failures) >= MIN_FAILING_ALLOCATIONS
    assert errno.ENOMEM in failures
    print(sorted(set(failures)), failures)
    assert set(failures) <= {errno.ENOMEM, errno.EINVAL, ENOTSUPP}
    os.close(fd)
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)


def _lookup_program(fd: int) -> bytes:
    """Return an XDP program that looks up an all-zero key in a map and passes the packet."""
    size = -(-uapi.KEY_SIZE // 8) * 8
    # *(u64 *)(fp - offset) = 0
    clear = insn.encode(
        *(
            Instruction(insn.STORE_IMM64, _FRAME_POINTER, offset=-offset)
            for offset in range(8, size + 1, 8)
        )
    )
    key = insn.encode(  # r2 = fp - size
        Instruction(insn.MOVE, 2, _FRAME_POINTER), Instruction(insn.ADD_IMM, 2, immediate=-size)
    )
    call = insn.encode(Instruction(insn.CALL, immediate=_MAP_LOOKUP_ELEM))
    return clear + key + insn.load_map(1, fd) + call + insn.return_value(_XDP_PASS)
