# SPDX-License-Identifier: GPL-2.0-only
"""bpf_map_register_ops(): which operations and types it accepts, and conflicts over one slot."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import dummy_map_module
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.vmlinux_types import struct_members
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of, expect_errno
from fixtures.guest.core.polling import deadline_scale, wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.pytest_plugin.plugin_api import require_suite_module
from fixtures.guest.race import python_race

BUILTIN_TYPES = (0, 1, 2, 28, 35)  # unspec, hash, array, struct_ops, the last built-in type
SANITIZER_TIMEOUT_SCALE = 10
"""Timeout scale at and above which the kernel has sanitizers."""
MIN_MODULE_BYTES = 16384
"""Lower bound of a loaded module's memory in bytes: text, data and their read-only copies."""
BOTH_MODULES = (dummy_map_module.MODULE, dummy_map_module.SECOND_MODULE)
OUT_OF_RANGE_TYPES = (37, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


@pytest.fixture(autouse=True)
def _free_type_slot(flowmap_unloaded: None, cleanup: ExitStack) -> None:  # noqa: ARG001
    """Unload the flow map module and disable autoload, so that the type's slot stays free."""
    require_suite_module(dummy_map_module.MODULE)
    modules.modprobe(modules.FLOWTABLE_MODULE)
    cleanup.enter_context(modules.autoload_disabled())


def _unload_at_cleanup(cleanup: ExitStack, name: str = dummy_map_module.MODULE) -> None:
    def unload() -> None:
        if modules.loaded(name):
            # A work item frees a map some time after its last fd is closed.
            wait_for("the maps to be freed", lambda: dummy_map_module.all_maps_freed([name]))
            modules.unload(name)

    cleanup.callback(unload)


def _load_until_cleanup(
    cleanup: ExitStack, name: str = dummy_map_module.MODULE, **parameters: object
) -> None:
    dummy_map_module.load(name, **parameters)
    _unload_at_cleanup(cleanup, name)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-1.1", "MM-4.1", "MM-4.7")
def test_modular_map_type_works_like_builtin(cleanup: ExitStack) -> None:
    """Maps of a registered modular type work like built-in ones and pin the module."""
    _load_until_cleanup(cleanup)
    with bpf.closing_fd(dummy_map_module.create_map(max_entries=3)) as fd:
        assert [dummy_map_module.lookup(fd, index) for index in range(3)] == [0, 0, 0]
        with expect_errno(errno.ENOENT):
            dummy_map_module.lookup(fd, 3)
        assert bpf.map_info(fd).max_entries == 3
        with expect_errno(errno.EWOULDBLOCK):
            modules.unload(dummy_map_module.MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-1.3", "MM-2.3", "MM-2.4", "V0-1")
@pytest.mark.parametrize("callback", [*dummy_map_module.REQUIRED_CALLBACKS, "owner", "ops"])
def test_register_without_required_callback_is_einval(callback: str) -> None:
    """Operations without an owner, or a callback that the core calls unchecked, give EINVAL."""
    with expect_errno(errno.EINVAL):
        dummy_map_module.load(omit=callback)
    assert not modules.loaded(dummy_map_module.MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2.5")
@pytest.mark.parametrize(
    "callback", ["map_for_each_callback", "map_set_for_each_callback_args", "map_mmap_fault"]
)
def test_register_with_half_a_callback_pair_is_einval(callback: str) -> None:
    """One callback of a pair without the other gives EINVAL."""
    if callback not in {member.name for member in struct_members("bpf_map_ops")[1]}:
        pytest.skip(f"struct bpf_map_ops has no {callback}")
    with expect_errno(errno.EINVAL):
        dummy_map_module.load(unpaired=callback)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2.5")
@pytest.mark.parametrize("pair", ["for_each", "mmap"])
def test_register_with_both_paired_callbacks_succeeds(pair: str, cleanup: ExitStack) -> None:
    """Both callbacks of a pair together are accepted."""
    _load_until_cleanup(cleanup, paired=pair)
    os.close(dummy_map_module.create_map())


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2.4")
@pytest.mark.parametrize("callback", ["map_alloc_check", "map_meta_equal"])
def test_register_without_optional_callback_succeeds(callback: str, cleanup: ExitStack) -> None:
    """A callback that the core checks for before the call may be absent."""
    _load_until_cleanup(cleanup, omit=callback)
    os.close(dummy_map_module.create_map())


@pytest.mark.shared_vm
@pytest.mark.clause("MM-2.1", "MM-2.2")
@pytest.mark.parametrize("map_type", [*BUILTIN_TYPES, *OUT_OF_RANGE_TYPES], ids="type-{}".format)
def test_register_non_modular_type_is_einval(map_type: int) -> None:
    """Registering a built-in or out-of-range type gives EINVAL; unregistering has no effect."""
    with expect_errno(errno.EINVAL):
        dummy_map_module.load(type=map_type)
    # Unregistering it has no effect either.
    with expect_errno(errno.EINVAL):
        dummy_map_module.load(type=map_type, unregister_refused=True)


@pytest.mark.clause("MM-2.6")
def test_register_taken_slot_is_ebusy_and_owner_keeps_working(cleanup: ExitStack) -> None:
    """Registering a taken slot gives EBUSY, and the owner's maps go on working."""
    _load_until_cleanup(cleanup)
    with bpf.closing_fd(dummy_map_module.create_map()) as fd:
        with expect_errno(errno.EBUSY):
            dummy_map_module.load(dummy_map_module.SECOND_MODULE)
        with expect_errno(errno.EBUSY):
            modules.load(modules.FLOWMAP_MODULE)
        assert dummy_map_module.lookup(fd, 0) == 0
    os.close(dummy_map_module.create_map())


@pytest.mark.clause("MM-2.6")
def test_unregister_by_refused_module_keeps_owner_registered(cleanup: ExitStack) -> None:
    """A module that was refused the slot cannot unregister the slot's owner."""
    _load_until_cleanup(cleanup)
    with expect_errno(errno.EBUSY):
        dummy_map_module.load(dummy_map_module.SECOND_MODULE, unregister_refused=True)
    os.close(dummy_map_module.create_map())


@pytest.mark.clause("MM-2.6", "V0-9")
def test_flowmap_module_load_into_taken_slot_is_ebusy(cleanup: ExitStack) -> None:
    """The flow map module fails to load with EBUSY as long as the slot is taken."""
    dummy_map_module.load()
    with expect_errno(errno.EBUSY):
        modules.load(modules.FLOWMAP_MODULE)
    assert not modules.loaded(modules.FLOWMAP_MODULE)
    modules.unload(dummy_map_module.MODULE)

    modules.load(modules.FLOWMAP_MODULE)
    cleanup.callback(modules.unload, modules.FLOWMAP_MODULE)
    os.close(bpf.flowmap_create())


@pytest.mark.clause("MM-2.7")
@pytest.mark.deadline(60)
def test_concurrent_registrations_have_one_winner() -> None:
    """One of two modules that register the type concurrently succeeds, the other gets EBUSY."""

    def loader(name: str) -> python_race.Actor:
        path = modules.module_path(name)
        return lambda _: modules.load_file(path)

    rounds, overlapping = 20, 0
    for _ in range(rounds):
        report = python_race.run({name: loader(name) for name in BOTH_MODULES}, rounds=1)
        overlapping += report.overlaps
        errnos = {name: report.calls[name][0].errno for name in BOTH_MODULES}
        assert sorted(errnos.values()) == [0, errno.EBUSY], errnos
        os.close(dummy_map_module.create_map())
        wait_for("the map to be freed", lambda: dummy_map_module.all_maps_freed(BOTH_MODULES))
        modules.unload(next(name for name in BOTH_MODULES if errnos[name] == 0))
    assert overlapping >= rounds // 4, f"loads overlapped in only {overlapping} of {rounds} rounds"


@pytest.mark.clause("MM-3.3", "MM-3.4")
def test_module_init_failure_after_register_frees_slot(cleanup: ExitStack) -> None:
    """A failing init after the registration leaves the slot free."""
    with expect_errno(errno.ENODEV):
        dummy_map_module.load(fail_init=True)
    with expect_errno(errno.EINVAL):
        dummy_map_module.create_map()
    _load_until_cleanup(cleanup, dummy_map_module.SECOND_MODULE)
    os.close(dummy_map_module.create_map())


@pytest.mark.clause("MM-3.4")
@pytest.mark.parametrize("init_fails", [False, True], ids=["init-succeeds", "init-fails"])
def test_map_create_during_module_init_is_einval(init_fails: bool, cleanup: ExitStack) -> None:
    """Map creation gives EINVAL while the module's init runs, as if the module were absent."""

    bpf.flowmap_type()  # cached here, so that the child opens no file
    loading = child_process.GatedChild(
        lambda: dummy_map_module.load(init_delay_ms=1, fail_init=init_fails)
    )
    # After its registration the init calls msleep().
    with stop_at("msleep", tgid=loading.pid) as in_init:
        loading.start()
        in_init.wait_until_held()
        answers = [errno_of(dummy_map_module.create_map) for _ in range(3)]
        assert modules.coming(dummy_map_module.MODULE)
        in_init.release()
    assert answers == [errno.EINVAL] * 3
    if init_fails:
        with pytest.raises(child_process.ChildFailed, match="No such device"):
            loading.join()
        assert errno_of(dummy_map_module.create_map) == errno.EINVAL
    else:
        loading.join()
        _unload_at_cleanup(cleanup)
        assert errno_of(dummy_map_module.create_map) == 0


@pytest.mark.clause("MM-4.6", "MM-4.7", "MM-4.8")
def test_map_pins_module_until_deferred_free(cleanup: ExitStack) -> None:
    """A map pins its module until the deferred free has finished."""
    _load_until_cleanup(cleanup, free_delay_ms=1000)
    fd = dummy_map_module.create_map()
    os.close(fd)
    # The last reference is dropped, and the free sleeps in its work item.
    assert dummy_map_module.allocated_maps() == 1
    with expect_errno(errno.EWOULDBLOCK):
        modules.unload(dummy_map_module.MODULE)
    wait_for("the map to be freed", lambda: dummy_map_module.allocated_maps() == 0)
    modules.wait_until_unreferenced(dummy_map_module.MODULE)
    modules.unload(dummy_map_module.MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5.2")
@pytest.mark.parametrize(
    "alloc_errno",
    [errno.ENOMEM, errno.E2BIG, errno.EPERM, errno.EOPNOTSUPP],
    ids=["enomem", "e2big", "eperm", "eopnotsupp"],
)
def test_map_alloc_errno_is_returned_without_module_ref(
    alloc_errno: int, cleanup: ExitStack
) -> None:
    """The errno of map_alloc() is returned to user space, and no module reference is left."""
    _load_until_cleanup(cleanup, alloc_error=-alloc_errno)
    for _ in range(3):
        with expect_errno(alloc_errno):
            dummy_map_module.create_map()
    assert modules.refcount(dummy_map_module.MODULE) == 0

    dummy_map_module.set_parameter("alloc_error", 0)
    os.close(dummy_map_module.create_map())


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5.1")
def test_core_attr_refusal_leaves_no_module_ref(cleanup: ExitStack) -> None:
    """Attributes that the core refuses leave no module reference and no map."""
    _load_until_cleanup(cleanup)
    for expected_errno, fields in (
        (errno.EINVAL, {"btf_key_type_id": 1}),  # without a BTF fd
        (errno.EINVAL, {"map_ifindex": 1}),
        (errno.EINVAL, {"btf_vmlinux_value_type_id": 1}),
        (errno.EINVAL, {"max_entries": 1025}),
    ):
        with expect_errno(expected_errno):
            dummy_map_module.create_map(**fields)
    assert modules.refcount(dummy_map_module.MODULE) == 0
    assert dummy_map_module.allocated_maps() == 0


@pytest.mark.clause("MM-6.4")
@pytest.mark.usefixtures("own_kernel", "expedited_grace_periods")
@pytest.mark.deadline(120)
def test_repeated_module_load_unload_leaks_no_memory() -> None:
    """Repeated module loads and unloads do not accumulate module memory."""
    # As many cycles as clause MM-6 asks for; fewer under sanitizers, where one takes longer.
    cycles = 1000 if deadline_scale() < SANITIZER_TIMEOUT_SCALE else 100
    path = modules.module_path(dummy_map_module.MODULE)
    # The first cycle leaves caches behind.
    modules.load_file(path)
    modules.unload(dummy_map_module.MODULE)
    before = modules.vmalloc_bytes_used()
    for cycle in range(cycles):
        modules.load_file(path)
        if cycle % 10 == 0:  # the grace period of a map free takes longest
            os.close(dummy_map_module.create_map())
            wait_for(
                "the map to be freed",
                lambda: dummy_map_module.all_maps_freed([dummy_map_module.MODULE]),
            )
        modules.unload(dummy_map_module.MODULE)
    # A work item frees module text.  Stacks of kernel threads come and go meanwhile.
    wait_for(
        "the modules' memory to be freed",
        lambda: modules.vmalloc_bytes_used() - before < 8 * MIN_MODULE_BYTES,
    )
