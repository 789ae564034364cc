# SPDX-License-Identifier: GPL-2.0-only
"""Which operations a module can register, as what, and who wins when two want one slot."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of, refused
from fixtures.guest.core.polling import scale, wait_for
from fixtures.guest.kernel import dummy_map_module, modules
from fixtures.guest.pytest_plugin.fixtures import require_own_module
from fixtures.guest.race import python_race

BUILT_IN = (0, 1, 2, 28, 35)  # unspec, hash, array, the struct_ops and the last built-in type
SANITIZERS = 10
"""Deadline scale from which on a kernel is one with sanitizers."""
MODULE_BYTES = 16384
"""Less than what a loaded module takes: text, data and their read-only copies."""
BOTH = (dummy_map_module.FIRST, dummy_map_module.SECOND)
OUT_OF_RANGE = (37, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


@pytest.fixture(autouse=True)
def _only_ours(without_module: None, cleanup: ExitStack) -> None:  # noqa: ARG001
    """The slot is free, and stays so until the test takes it."""
    require_own_module(dummy_map_module.FIRST)
    modules.probe(modules.FLOWTABLE)
    cleanup.enter_context(modules.autoload_disabled())


def _unload_at_the_end(cleanup: ExitStack, name: str = dummy_map_module.FIRST) -> None:
    def unload() -> None:
        if modules.loaded(name):
            # Maps are freed in a work queue, some time after their last descriptor.
            wait_for("the maps to be freed", lambda: dummy_map_module.free([name]))
            modules.unload(name)

    cleanup.callback(unload)


def _load(cleanup: ExitStack, name: str = dummy_map_module.FIRST, **parameters: object) -> None:
    dummy_map_module.load(name, **parameters)
    _unload_at_the_end(cleanup, name)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-1")
def test_module_brings_a_type_that_works_like_any_other(cleanup: ExitStack) -> None:
    _load(cleanup)
    with bpf.closing(dummy_map_module.create(max_entries=3)) as fd:
        assert [dummy_map_module.lookup(fd, index) for index in range(3)] == [0, 0, 0]
        with refused(errno.ENOENT):
            dummy_map_module.lookup(fd, 3)
        assert bpf.map_info(fd).max_entries == 3
        with refused(errno.EWOULDBLOCK):
            modules.unload(dummy_map_module.FIRST)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2", "V0-1")
@pytest.mark.parametrize("callback", [*dummy_map_module.CALLBACKS, "owner", "ops"])
def test_operations_without_what_the_core_needs_are_refused(callback: str) -> None:
    with refused(errno.EINVAL):
        dummy_map_module.load(lacks=callback)
    assert not modules.loaded(dummy_map_module.FIRST)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2")
@pytest.mark.parametrize(
    "callback", ["map_for_each_callback", "map_set_for_each_callback_args", "map_mmap_fault"]
)
def test_half_of_a_pair_of_callbacks_is_refused(callback: str) -> None:
    with refused(errno.EINVAL):
        dummy_map_module.load(alone=callback)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2")
@pytest.mark.parametrize("pair", ["for_each", "mmap"])
def test_both_of_a_pair_of_callbacks_are_taken(pair: str, cleanup: ExitStack) -> None:
    _load(cleanup, pair=pair)
    os.close(dummy_map_module.create())


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2")
@pytest.mark.parametrize("callback", ["map_alloc_check", "map_meta_equal"])
def test_what_the_core_looks_for_may_be_absent(callback: str, cleanup: ExitStack) -> None:
    _load(cleanup, lacks=callback)
    os.close(dummy_map_module.create())


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2")
@pytest.mark.parametrize("kind", [*BUILT_IN, *OUT_OF_RANGE])
def test_type_that_is_not_reserved_for_modules_is_refused(kind: int) -> None:
    with refused(errno.EINVAL):
        dummy_map_module.load(type=kind)
    # To unregister it, too, does nothing.
    with refused(errno.EINVAL):
        dummy_map_module.load(type=kind, untidy=True)


@pytest.mark.clause("MM-2")
def test_slot_that_is_taken_is_refused_and_its_owner_goes_on(cleanup: ExitStack) -> None:
    _load(cleanup)
    with bpf.closing(dummy_map_module.create()) as fd:
        with refused(errno.EBUSY):
            dummy_map_module.load(dummy_map_module.SECOND)
        with refused(errno.EBUSY):
            modules.load(modules.FLOWMAP)
        assert dummy_map_module.lookup(fd, 0) == 0
    os.close(dummy_map_module.create())


@pytest.mark.clause("MM-2")
def test_module_that_was_refused_takes_nothing_away_by_unregistering(cleanup: ExitStack) -> None:
    _load(cleanup)
    with refused(errno.EBUSY):
        dummy_map_module.load(dummy_map_module.SECOND, untidy=True)
    os.close(dummy_map_module.create())


@pytest.mark.clause("MM-2", "V0-9")
def test_flow_map_module_does_not_load_into_a_slot_that_is_taken(cleanup: ExitStack) -> None:
    dummy_map_module.load()
    with refused(errno.EBUSY):
        modules.load(modules.FLOWMAP)
    assert not modules.loaded(modules.FLOWMAP)
    modules.unload(dummy_map_module.FIRST)

    modules.load(modules.FLOWMAP)
    cleanup.callback(modules.unload, modules.FLOWMAP)
    os.close(bpf.flowmap_create())


@pytest.mark.clause("MM-2")
@pytest.mark.deadline(60)
def test_of_two_registrations_at_once_one_wins() -> None:
    def loader(name: str) -> python_race.Actor:
        path = modules.file_of(name)
        return lambda _: modules.load_file(path)

    rounds, met = 20, 0
    for _ in range(rounds):
        report = python_race.run({name: loader(name) for name in BOTH}, rounds=1)
        met += report.overlaps
        answers = {name: report.calls[name][0].errno for name in BOTH}
        assert sorted(answers.values()) == [0, errno.EBUSY], answers
        os.close(dummy_map_module.create())
        wait_for("the map to be freed", lambda: dummy_map_module.free(BOTH))
        modules.unload(next(name for name in BOTH if answers[name] == 0))
    assert met >= rounds // 4, f"the two met in {met} of {rounds} rounds only"


@pytest.mark.clause("MM-2", "MM-3")
def test_init_that_fails_after_registering_leaves_the_slot_free(cleanup: ExitStack) -> None:
    with refused(errno.ENODEV):
        dummy_map_module.load(fail=True)
    with refused(errno.EINVAL):
        dummy_map_module.create()
    _load(cleanup, dummy_map_module.SECOND)
    os.close(dummy_map_module.create())


@pytest.mark.clause("MM-3", "MM-7")
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_type_of_a_module_in_its_init_counts_as_absent(fails: bool, cleanup: ExitStack) -> None:
    def load() -> None:
        dummy_map_module.load(linger=1000, fail=fails)

    loading = child_process.Child(load)
    wait_for("the module's init to run", lambda: modules.coming(dummy_map_module.FIRST))
    while modules.coming(dummy_map_module.FIRST):
        # The look afterwards is what makes the answer belong to the init.
        answer = errno_of(dummy_map_module.create)
        if modules.coming(dummy_map_module.FIRST):
            assert answer == errno.EINVAL
    if fails:
        with pytest.raises(child_process.ChildFailed, match="No such device"):
            loading.join()
        assert errno_of(dummy_map_module.create) == errno.EINVAL
    else:
        loading.join()
        _unload_at_the_end(cleanup)
        assert errno_of(dummy_map_module.create) == 0


@pytest.mark.clause("MM-4")
def test_map_pins_its_module_until_it_is_freed(cleanup: ExitStack) -> None:
    _load(cleanup, free_ms=1000)
    fd = dummy_map_module.create()
    os.close(fd)
    # The last reference is gone, and the free sleeps in a work queue.
    assert dummy_map_module.maps() == 1
    with refused(errno.EWOULDBLOCK):
        modules.unload(dummy_map_module.FIRST)
    wait_for("the map to be freed", lambda: dummy_map_module.maps() == 0)
    modules.await_unreferenced(dummy_map_module.FIRST)
    modules.unload(dummy_map_module.FIRST)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5")
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.E2BIG, errno.EPERM, errno.EOPNOTSUPP])
def test_failed_allocation_is_passed_on_and_leaves_no_reference(
    number: int, cleanup: ExitStack
) -> None:
    _load(cleanup, alloc_error=-number)
    for _ in range(3):
        with refused(number):
            dummy_map_module.create()
    assert modules.references(dummy_map_module.FIRST) == 0

    dummy_map_module.set_parameter("alloc_error", 0)
    os.close(dummy_map_module.create())


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5")
def test_attributes_that_the_core_refuses_leave_no_reference(cleanup: ExitStack) -> None:
    _load(cleanup)
    for number, fields in (
        (errno.EINVAL, {"btf_key_type_id": 1}),  # without a BTF descriptor
        (errno.EINVAL, {"map_ifindex": 1}),
        (errno.EINVAL, {"map_extra": 1}),
        (errno.EINVAL, {"btf_vmlinux_value_type_id": 1}),
        (errno.EINVAL, {"max_entries": 1025}),
    ):
        with refused(number):
            dummy_map_module.create(**fields)
    assert modules.references(dummy_map_module.FIRST) == 0
    assert dummy_map_module.maps() == 0


@pytest.mark.clause("MM-6")
@pytest.mark.deadline(120)
def test_thousand_loads_and_unloads_leave_nothing() -> None:
    # As many as the contract says where a cycle takes milliseconds, fewer under sanitizers.
    cycles = 1000 if scale() < SANITIZERS else 100
    path = modules.file_of(dummy_map_module.FIRST)
    before = modules.memory_in_use()
    for cycle in range(cycles):
        modules.load_file(path)
        if cycle % 10 == 0:  # freeing a map takes a grace period, longer than all else
            os.close(dummy_map_module.create())
            wait_for("the map to be freed", lambda: dummy_map_module.free([dummy_map_module.FIRST]))
        modules.unload(dummy_map_module.FIRST)
    # Module text is freed in a work queue; a leak would be of one module a cycle.
    wait_for(
        "the modules' memory to be given back",
        lambda: modules.memory_in_use() - before < cycles * MODULE_BYTES / 10,
    )
