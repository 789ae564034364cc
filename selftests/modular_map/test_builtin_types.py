# SPDX-License-Identifier: GPL-2.0-only
"""Built-in map types beside modular ones: locks, module references, and calls from programs."""

import errno
import os
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import pytest

from fixtures.guest.bpf import bpf_attr, prog_info
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.btf_builder import BtfBuilder
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

_SLOT = struct.pack("=I", 0)
# The slots of selftests/bpf/lock_calls.bpf.c
_MODULE_REFERENCES, _LOCK_CALLS = range(2)


@dataclass(frozen=True)
class MapKind:
    """A built-in map type, and attributes with which a map of it can be created."""

    number: int
    key_size: int = 4
    value_size: int = 4
    max_entries: int = 1
    map_flags: int = 0
    inner: bool = False
    """A map of maps: needs another map as its template."""
    typed: bool = False
    """Local storage: needs the types of key and value."""
    fields: dict[str, int] = field(default_factory=dict)


BUILTIN_KINDS = {
    "hash": MapKind(1),
    "array": MapKind(2),
    "prog_array": MapKind(3),
    "perf_event_array": MapKind(4),
    "percpu_hash": MapKind(5),
    "percpu_array": MapKind(6),
    "stack_trace": MapKind(7, value_size=8),
    "cgroup_array": MapKind(8),
    "lru_hash": MapKind(9),
    "lru_percpu_hash": MapKind(10),
    "lpm_trie": MapKind(11, key_size=8, map_flags=bpf_attr.F_NO_PREALLOC),
    "array_of_maps": MapKind(12, inner=True),
    "hash_of_maps": MapKind(13, inner=True),
    "devmap": MapKind(14),
    "sockmap": MapKind(15),
    "cpumap": MapKind(16),
    "xskmap": MapKind(17),
    "sockhash": MapKind(18),
    "reuseport_sockarray": MapKind(20),
    "queue": MapKind(22, key_size=0),
    "stack": MapKind(23, key_size=0),
    "sk_storage": MapKind(24, max_entries=0, map_flags=bpf_attr.F_NO_PREALLOC, typed=True),
    "devmap_hash": MapKind(25),
    "ringbuf": MapKind(27, key_size=0, value_size=0, max_entries=os.sysconf("SC_PAGE_SIZE")),
    "task_storage": MapKind(29, max_entries=0, map_flags=bpf_attr.F_NO_PREALLOC, typed=True),
    "bloom_filter": MapKind(30, key_size=0),
    "user_ringbuf": MapKind(31, key_size=0, value_size=0, max_entries=os.sysconf("SC_PAGE_SIZE")),
    "cgrp_storage": MapKind(32, max_entries=0, map_flags=bpf_attr.F_NO_PREALLOC, typed=True),
    "arena": MapKind(33, key_size=0, value_size=0, map_flags=bpf_attr.F_MMAPABLE),
    "insn_array": MapKind(34, value_size=16),
    "rhash": MapKind(35, map_flags=bpf_attr.F_NO_PREALLOC),
}


class Creator:
    """Creates maps of built-in types, with the objects that some of them need."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._template = bpf.map_create(bpf_attr.MAP_TYPE_ARRAY, 4, 4, 1)
        cleanup.callback(os.close, self._template)
        types = BtfBuilder()
        self._number = types.add_int("number", 4)
        self._btf = types.load()
        cleanup.callback(os.close, self._btf)

    def create(self, kind: MapKind) -> int:
        """Create a map; return its descriptor."""
        fields = dict(kind.fields)
        if kind.inner:
            fields["inner_map_fd"] = self._template
        if kind.typed:
            fields |= {
                "btf_fd": self._btf,
                "btf_key_type_id": self._number,
                "btf_value_type_id": self._number,
            }
        return bpf.map_create(
            kind.number,
            kind.key_size,
            kind.value_size,
            kind.max_entries,
            kind.map_flags,
            "",
            **fields,
        )


@pytest.mark.clause("MM-8.3")
def test_builtin_maps_take_no_module_ref(flowmap_loaded: str, cleanup: ExitStack) -> None:
    """A map of any built-in type takes no module reference, and the module can be unloaded."""
    creator, fds = Creator(cleanup), {}
    for name, kind in BUILTIN_KINDS.items():
        try:
            fds[name] = creator.create(kind)
        except OSError as error:
            raise AssertionError(f"{name}: {error}") from error
        cleanup.callback(os.close, fds[name])
        assert bpf.map_info(fds[name]).type == kind.number
        assert modules.refcount(flowmap_loaded) == 0, name
    modules.unload(flowmap_loaded)
    for name, fd in fds.items():
        assert bpf.map_info(fd).type == BUILTIN_KINDS[name].number
        os.close(creator.create(BUILTIN_KINDS[name]))


@pytest.mark.usefixtures("pinned_to_test_cpu", "flowmap_loaded")
@pytest.mark.clause("MM-8.2")
def test_builtin_maps_are_created_while_modular_type_mutex_is_held(cleanup: ExitStack) -> None:
    """Maps of every built-in type are created while another task holds the modular types' mutex."""
    creator = Creator(cleanup)
    bpf.flowmap_type()  # cached here, so that the child opens no file
    modular = child_process.GatedChild(lambda: os.close(bpf.flowmap_create()))
    # try_module_get() is called with the mutex held.  The syncpoint's timeout releases the task
    # only if this test fails.
    with stop_at("try_module_get", tgid=modular.pid) as syncpoint:
        modular.start()
        syncpoint.wait_until_held()
        for kind in BUILTIN_KINDS.values():
            os.close(creator.create(kind))
        syncpoint.release()
    modular.join()


# Locks that the creation of a built-in map takes on the unpatched kernel: that of the per-CPU
# allocator, and in stack_map_alloc() that of get_callchain_buffers().
KNOWN_LOCKS = {"pcpu_alloc_mutex", "callchain_mutex"}


@pytest.mark.clause("MM-8.2")
@pytest.mark.usefixtures("flowmap_loaded")
def test_builtin_map_create_takes_no_new_lock(cleanup: ExitStack) -> None:
    """Creation of a built-in map takes no sleeping lock of the kernel that it did not take before.

    Only locks with a name count: no other task can hold a lock in the object that is created.
    The control is the creation of a flow map, which takes the mutex of modular types and a
    reference to a module.
    """
    creator = Creator(cleanup)
    watcher = BpfObject("lock_calls", {})
    cleanup.callback(watcher.close)
    for program in (
        "on_mutex_lock",
        "on_mutex_lock_interruptible",
        "on_mutex_lock_killable",
        "on_mutex_trylock",
        "on_down_read",
        "on_down_write",
        "on_down_write_killable",
        "on_try_module_get",
        "on___module_get",
    ):
        watcher.attach(program, cleanup)

    def locks_of(create: Callable[[], int]) -> tuple[set[str], int]:
        before = watcher.counter(_MODULE_REFERENCES)
        bpf.update_raw(watcher.map_fd("watched_tgid"), _SLOT, struct.pack("=I", os.getpid()))
        fd = create()
        bpf.update_raw(watcher.map_fd("watched_tgid"), _SLOT, struct.pack("=I", 0))
        os.close(fd)
        taken = set()
        for key in bpf.raw_keys(watcher.map_fd("locks"), 8):
            taken.add(prog_info.static_symbol(int.from_bytes(key, sys.byteorder)))
            bpf.delete_raw(watcher.map_fd("locks"), key)
        return taken - {""}, watcher.counter(_MODULE_REFERENCES) - before

    wrong = {}
    for name, kind in BUILTIN_KINDS.items():
        taken, references = locks_of(partial(creator.create, kind))
        if references or not taken <= KNOWN_LOCKS:
            wrong[name] = (sorted(taken - KNOWN_LOCKS), references)
    assert not wrong
    taken, references = locks_of(bpf.flowmap_create)
    assert "bpf_modular_map_mutex" in taken
    assert references == 1


_HASH_LOOKUP = ["__htab_map_lookup_elem"]
# What the verifier makes of a call on the unpatched kernel (7.3), by type and program of
# selftests/bpf/builtin_lookups.bpf.c: an empty list is code in place of the call.
CALLS: dict[str, dict[str, list[str]]] = {
    "hash": {
        "lookup": _HASH_LOOKUP,
        "update": ["htab_map_update_elem"],
        "delete": ["htab_map_delete_elem"],
        "for_each": ["bpf_for_each_hash_elem"],
    },
    "array": {
        "lookup": [],
        "update": ["array_map_update_elem"],
        "delete": ["array_map_delete_elem"],
        "for_each": ["bpf_for_each_array_elem"],
    },
    "percpu_hash": {
        "lookup": _HASH_LOOKUP,
        "update": ["htab_percpu_map_update_elem"],
        "delete": ["htab_map_delete_elem"],
        "lookup_percpu": ["htab_percpu_map_lookup_percpu_elem"],
    },
    "percpu_array": {
        "lookup": [],
        "update": ["array_map_update_elem"],
        "lookup_percpu": ["percpu_array_map_lookup_percpu_elem"],
    },
    "lru_hash": {
        "lookup": _HASH_LOOKUP,
        "update": ["htab_lru_map_update_elem"],
        "delete": ["htab_lru_map_delete_elem"],
    },
    "queue": {
        "push": ["queue_stack_map_push_elem"],
        "pop": ["queue_map_pop_elem"],
        "peek": ["queue_map_peek_elem"],
    },
    "stack": {"pop": ["stack_map_pop_elem"], "peek": ["stack_map_peek_elem"]},
    "devmap": {"redirect": ["dev_map_redirect"]},
    "devmap_hash": {"redirect": ["dev_hash_map_redirect"]},
    "cpumap": {"redirect": ["cpu_map_redirect"]},
    "xskmap": {"redirect": ["xsk_map_redirect"]},
}


@pytest.mark.clause("MM-8.1")
def test_builtin_map_calls_of_programs_are_as_direct_as_before(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """The verifier replaces map calls of built-in types as on the unpatched kernel.

    It calls the type's function directly, or puts its code in place of the call.
    """
    flows = make_flowmap()
    for name, expected in CALLS.items():
        kind = BUILTIN_KINDS[name]
        value_size = 4 if "redirect" in expected else 8
        fd = bpf.map_create(kind.number, kind.key_size, value_size, 1)
        cleanup.callback(os.close, fd)
        loaded = BpfObject(
            "builtin_lookups", {"map": fd, "flows": flows}, (*expected, "flowmap_lookup")
        )
        cleanup.callback(loaded.close)
        calls = {
            program: prog_info.called_functions(loaded.program_fd(program)) for program in expected
        }
        assert calls == expected, name
        (of_flowmap,) = prog_info.called_functions(loaded.program_fd("flowmap_lookup"))
        assert of_flowmap in ("flowmap_lookup_elem", "bpf_map_lookup_elem")


@pytest.mark.clause("MM-8.1")
def test_builtin_map_of_maps_calls_are_as_direct_as_before(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """A lookup in a map of flow maps is inlined as one in a map of built-in maps."""
    flows = make_flowmap()
    plain = bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 8, 1)
    cleanup.callback(os.close, plain)
    for outer_type, expected in (
        (bpf_attr.MAP_TYPE_ARRAY_OF_MAPS, []),
        (bpf_attr.MAP_TYPE_HASH_OF_MAPS, ["__htab_map_lookup_elem"]),
    ):
        for template in (plain, flows):
            fd = bpf.map_create(outer_type, 4, 4, 1, inner_map_fd=template)
            cleanup.callback(os.close, fd)
            loaded = BpfObject("builtin_lookups", {"map": fd, "flows": flows}, ("lookup",))
            cleanup.callback(loaded.close)
            assert prog_info.called_functions(loaded.program_fd("lookup")) == expected


@pytest.mark.shared_vm
@pytest.mark.clause("MM-8.1")
@pytest.mark.usefixtures("flowmap_loaded")
def test_unknown_map_types_are_einval_beside_modular_ones() -> None:
    """Type numbers that are neither built in nor modular give EINVAL, as without the series."""
    first_unknown = bpf.flowmap_type() + 1
    for number in (0, first_unknown, first_unknown + 1, 1 << 16, (1 << 31), (1 << 32) - 1):
        assert errno_of(lambda number=number: bpf.map_create(number, 4, 4, 1)) == errno.EINVAL, (  # type: ignore[misc]
            number
        )
