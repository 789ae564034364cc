# SPDX-License-Identifier: GPL-2.0-only
"""BPF_MAP_CREATE of a flow map: capabilities, attributes, module autoload; built-in map types."""

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
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

_UNPRIVILEGED_BPF_DISABLED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.1")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_map_create_autoloads_module(make_flowmap: MakeFlowmap) -> None:
    """Creating a flow map loads its module, and the map holds one module reference."""
    make_flowmap()
    assert modules.loaded(modules.FLOWMAP_MODULE)
    assert modules.refcount(modules.FLOWMAP_MODULE) == 1


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.3")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_map_create_without_module_is_einval_like_unknown_type() -> None:
    """Without the module the type gives EINVAL, like a type number that does not exist."""
    with modules.autoload_disabled():
        absent_module = errno_of(bpf.flowmap_create)
        unknown_type = errno_of(lambda: bpf.map_create(999, 4, 4, 1))
    assert absent_module == unknown_type == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.2", "FM-1.9")
@pytest.mark.parametrize(
    "capabilities",
    [(), (child_process.CAP_BPF,), (child_process.CAP_NET_ADMIN,)],
    ids=["no-caps", "cap-bpf-only", "cap-net-admin-only"],
)
@pytest.mark.usefixtures("flowmap_unloaded")
def test_map_create_unprivileged_is_eperm_without_autoload(
    capabilities: tuple[int, ...], cleanup: ExitStack
) -> None:
    """A caller without both capabilities gets EPERM and does not trigger module autoload."""
    # Otherwise the kernel refuses before it looks at the map type.
    before = _UNPRIVILEGED_BPF_DISABLED.read_text()
    _UNPRIVILEGED_BPF_DISABLED.write_text("0\n")
    cleanup.callback(_UNPRIVILEGED_BPF_DISABLED.write_text, before)

    def attempt() -> int:
        child_process.drop_capabilities_except(*capabilities)
        return errno_of(bpf.flowmap_create)

    assert child_process.run_in_child(attempt) == errno.EPERM
    assert not modules.loaded(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.1", "FM-1.9")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_map_create_with_cap_bpf_and_net_admin_succeeds() -> None:
    """CAP_BPF and CAP_NET_ADMIN suffice to create a flow map and to autoload its module."""

    def attempt() -> int:
        child_process.drop_capabilities_except(child_process.CAP_BPF, child_process.CAP_NET_ADMIN)
        return errno_of(bpf.flowmap_create)

    assert child_process.run_in_child(attempt) == 0


INVALID_ATTRS = {
    "key-size-0": {"key_size": 0},
    "key-size-short": {"key_size": uapi.KEY_SIZE - 1},
    "key-size-long": {"key_size": uapi.KEY_SIZE + 1},
    "key-size-u32-max": {"key_size": 0xFFFFFFFF},
    "value-size-0": {"value_size": 0},
    "value-size-short": {"value_size": uapi.VALUE_SIZE_VER0 - 1},
    "value-size-long": {"value_size": uapi.VALUE_SIZE + 1},
    "value-size-u32-max": {"value_size": 0xFFFFFFFF},
    "max-entries-0": {"max_entries": 0},
    "max-entries-of-one-direction": {"max_entries": 1},
    "without-rdonly-prog": {"map_flags": 0},
    "wronly-prog": {"map_flags": bpf_attr.F_RDONLY_PROG | bpf_attr.F_WRONLY_PROG},
    "no-prealloc": {"map_flags": bpf_attr.F_RDONLY_PROG | bpf_attr.F_NO_PREALLOC},
    "mmapable": {"map_flags": bpf_attr.F_RDONLY_PROG | bpf_attr.F_MMAPABLE},
    "map-extra-unknown-bit": {"map_extra": 2},
    "map-extra-passive-and-unknown-bit": {"map_extra": uapi.PASSIVE | 1 << 63},
}


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.1", "FM-1.2", "FM-1.3", "FM-1.4", "FM-1.5", "FM-1.6", "MM-5.1")
@pytest.mark.parametrize("attributes", INVALID_ATTRS.values(), ids=INVALID_ATTRS)
def test_map_create_invalid_attrs_is_einval_without_module_ref(
    attributes: dict[str, int], flowmap_loaded: str
) -> None:
    """Invalid sizes, capacity or flags give EINVAL and leave no module reference."""
    assert errno_of(lambda: bpf.flowmap_create(**attributes)) == errno.EINVAL
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.3", "MM-10.1")
@pytest.mark.parametrize("entries", [2, 3, 65536])
def test_map_info_reports_requested_max_entries(entries: int, make_flowmap: MakeFlowmap) -> None:
    """Map info reports the requested max_entries and the UAPI's key and value sizes."""
    info = bpf.map_info(make_flowmap(max_entries=entries))
    assert info.max_entries == entries
    assert (info.key_size, info.value_size) == (uapi.KEY_SIZE, uapi.VALUE_SIZE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-10.1")
def test_map_info_and_fdinfo_describe_flow_map(make_flowmap: MakeFlowmap) -> None:
    """BPF_OBJ_GET_INFO_BY_FD and fdinfo report type, flags, name, capacity and memory."""
    fd = make_flowmap(max_entries=64)
    info = bpf.map_info(fd)
    assert info.type == bpf.flowmap_type()
    assert info.map_flags & bpf_attr.F_RDONLY_PROG
    assert info.name == b"flows"

    fdinfo = bpf.fdinfo(fd)
    assert int(fdinfo["map_type"]) == bpf.flowmap_type()
    assert int(fdinfo["max_entries"]) == 64
    assert int(fdinfo["memlock"]) > 0


@pytest.mark.clause("MM-8.3")
@pytest.mark.parametrize(
    "map_type", [bpf_attr.MAP_TYPE_HASH, bpf_attr.MAP_TYPE_ARRAY], ids=["hash", "array"]
)
def test_builtin_map_takes_no_flowmap_module_ref(map_type: int, flowmap_loaded: str) -> None:
    """A built-in map takes no reference to the flow map module, which can be unloaded."""
    with bpf.closing_fd(bpf.map_create(map_type, 4, 4, 8)):
        assert modules.refcount(flowmap_loaded) == 0
        modules.unload(flowmap_loaded)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-8.1")
@pytest.mark.usefixtures("flowmap_loaded")
def test_builtin_map_fdinfo_is_unchanged() -> None:
    """A hash map's fdinfo has the common fields and none of the flow map's."""
    with bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8)) as fd:
        fdinfo = bpf.fdinfo(fd)
    assert (fdinfo["map_type"], fdinfo["max_entries"]) == (str(bpf_attr.MAP_TYPE_HASH), "8")
    assert not [line for line in fdinfo if line.startswith("flowmap")]


@pytest.mark.usefixtures("pinned_to_test_cpu", "flowmap_loaded")
@pytest.mark.clause("MM-8.2")
@pytest.mark.parametrize(
    "map_type", [bpf_attr.MAP_TYPE_HASH, bpf_attr.MAP_TYPE_ARRAY], ids=["hash", "array"]
)
def test_builtin_map_create_does_not_wait_for_modular_type_mutex(map_type: int) -> None:
    """A built-in map can be created while another task holds the mutex of modular types."""
    bpf.flowmap_type()  # cached here, so that the child opens no file
    creator = child_process.GatedChild(lambda: os.close(bpf.flowmap_create()))
    # try_module_get() is called with the mutex held.  The syncpoint's timeout releases the task
    # only if this test fails.
    with stop_at("try_module_get", tgid=creator.pid) as syncpoint:
        creator.start()
        syncpoint.wait_until_held()
        os.close(bpf.map_create(map_type, 4, 4, 8))
        syncpoint.release()
    creator.join()
