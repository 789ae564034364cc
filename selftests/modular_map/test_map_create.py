# SPDX-License-Identifier: GPL-2.0-only
"""Who may create a flow map, with which attributes, and when its module is asked for."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import hold
from fixtures.guest.pytest_plugin.fixtures import Flowmap

_UNPRIVILEGED_SWITCH = Path("/proc/sys/kernel/unprivileged_bpf_disabled")


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3")
@pytest.mark.usefixtures("without_module")
def test_creation_loads_the_module(make_flowmap: Flowmap) -> None:
    make_flowmap()
    assert modules.loaded(modules.FLOWMAP)
    assert modules.references(modules.FLOWMAP) == 1


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3")
@pytest.mark.usefixtures("without_module")
def test_absent_module_is_einval_as_for_an_unknown_type() -> None:
    with modules.autoload_disabled():
        absent = errno_of(bpf.flowmap_create)
        unknown = errno_of(lambda: bpf.map_create(999, 4, 4, 1))
    assert absent == unknown == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3", "FM-1")
@pytest.mark.parametrize(
    "kept",
    [(), (child_process.CAP_BPF,), (child_process.CAP_NET_ADMIN,)],
    ids=["none", "only CAP_BPF", "only CAP_NET_ADMIN"],
)
@pytest.mark.usefixtures("without_module")
def test_unprivileged_caller_is_refused_and_loads_nothing(
    kept: tuple[int, ...], cleanup: ExitStack
) -> None:
    # With the switch on, the kernel refuses before it looks at the type.
    before = _UNPRIVILEGED_SWITCH.read_text()
    _UNPRIVILEGED_SWITCH.write_text("0\n")
    cleanup.callback(_UNPRIVILEGED_SWITCH.write_text, before)

    def attempt() -> int:
        child_process.keep_capabilities(*kept)
        return errno_of(bpf.flowmap_create)

    assert child_process.in_child(attempt) == errno.EPERM
    assert not modules.loaded(modules.FLOWMAP)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3", "FM-1")
@pytest.mark.usefixtures("without_module")
def test_both_capabilities_are_enough() -> None:
    def attempt() -> int:
        child_process.keep_capabilities(child_process.CAP_BPF, child_process.CAP_NET_ADMIN)
        return errno_of(bpf.flowmap_create)

    assert child_process.in_child(attempt) == 0


WRONG = {
    "no key size": {"key_size": 0},
    "short key": {"key_size": uapi.KEY_SIZE - 1},
    "long key": {"key_size": uapi.KEY_SIZE + 1},
    "huge key": {"key_size": 0xFFFFFFFF},
    "no value size": {"value_size": 0},
    "short value": {"value_size": uapi.VALUE_SIZE - 1},
    "long value": {"value_size": uapi.VALUE_SIZE + 1},
    "huge value": {"value_size": 0xFFFFFFFF},
    "no room": {"max_entries": 0},
    "no flags": {"map_flags": 0},
    "writable by programs": {"map_flags": bpf_attr.F_RDONLY_PROG | bpf_attr.F_WRONLY_PROG},
    "no preallocation": {"map_flags": bpf_attr.F_RDONLY_PROG | bpf_attr.F_NO_PREALLOC},
    "mappable": {"map_flags": bpf_attr.F_RDONLY_PROG | bpf_attr.F_MMAPABLE},
    "extra": {"map_extra": 1},
}


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1", "MM-5")
@pytest.mark.parametrize("attributes", WRONG.values(), ids=WRONG)
def test_wrong_attributes_are_einval_and_leave_no_reference(
    attributes: dict[str, int], flowmap_module: str
) -> None:
    assert errno_of(lambda: bpf.flowmap_create(**attributes)) == errno.EINVAL
    assert modules.references(flowmap_module) == 0


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1")
@pytest.mark.parametrize("entries", [1, 2, 65536])
def test_capacity_is_what_was_asked_for(entries: int, make_flowmap: Flowmap) -> None:
    info = bpf.map_info(make_flowmap(max_entries=entries))
    assert info.max_entries == entries
    assert (info.key_size, info.value_size) == (uapi.KEY_SIZE, uapi.VALUE_SIZE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-10")
def test_descriptor_describes_the_map(make_flowmap: Flowmap) -> None:
    fd = make_flowmap(max_entries=64)
    info = bpf.map_info(fd)
    assert info.type == bpf.flowmap_type()
    assert info.map_flags & bpf_attr.F_RDONLY_PROG
    assert info.name == b"flows"

    described = bpf.fdinfo(fd)
    assert int(described["map_type"]) == bpf.flowmap_type()
    assert int(described["max_entries"]) == 64
    assert int(described["memlock"]) > 0


@pytest.mark.clause("MM-8")
@pytest.mark.parametrize(
    "kind", [bpf_attr.MAP_TYPE_HASH, bpf_attr.MAP_TYPE_ARRAY], ids=["hash", "array"]
)
def test_builtin_types_take_no_reference_to_the_module(kind: int, flowmap_module: str) -> None:
    with bpf.closing(bpf.map_create(kind, 4, 4, 8)):
        assert modules.references(flowmap_module) == 0
        modules.unload(flowmap_module)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-8")
@pytest.mark.usefixtures("flowmap_module")
def test_builtin_types_describe_themselves_as_before() -> None:
    """Most have nothing to add to what every map's descriptor says, such as a modular type may."""
    with bpf.closing(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8)) as fd:
        described = bpf.fdinfo(fd)
    assert (described["map_type"], described["max_entries"]) == (str(bpf_attr.MAP_TYPE_HASH), "8")
    assert not [line for line in described if line.startswith("flowmap")]


@pytest.mark.usefixtures("near", "flowmap_module")
@pytest.mark.clause("MM-8")
@pytest.mark.parametrize(
    "kind", [bpf_attr.MAP_TYPE_HASH, bpf_attr.MAP_TYPE_ARRAY], ids=["hash", "array"]
)
def test_builtin_types_do_not_wait_for_the_mutex_of_modular_ones(kind: int) -> None:
    bpf.flowmap_type()  # read once, so that the child opens no file
    creator = child_process.Waiting(lambda: os.close(bpf.flowmap_create()))
    # Called with the mutex held; its holder goes on by itself only after a failure.
    with hold("try_module_get", task=creator.pid) as stop:
        creator.begin()
        stop.reached()
        os.close(bpf.map_create(kind, 4, 4, 8))
        stop.release()
    creator.join()
