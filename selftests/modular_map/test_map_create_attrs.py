# SPDX-License-Identifier: GPL-2.0-only
"""BPF_MAP_CREATE with each attribute field at its boundaries, by each caller; other bpf() commands.

Each case has one errno (table in docs/series.md).  A refusal leaves no reference to the module,
at whichever step of the creation it happens.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of, expect_errno
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns

_PROG = bpf_attr.F_RDONLY_PROG
_NUMA_NODE = 1 << 2
_TOKEN_FD = 1 << 16
_FD_ACCESS_FLAGS = (bpf_attr.F_RDONLY, bpf_attr.F_WRONLY)
# More commands and attribute words than this kernel has; it refuses the unknown ones.
_COMMAND_COUNT = 48
_ATTR_WORDS = 40
_UNMAPPED_ADDRESS = 0xDEAD0000
_NO_SUCH_FD = 0x7FFFFFFF


class _RawAttr(ctypes.Structure):
    """``union bpf_attr`` as an array of 32-bit words, for any command."""

    _fields_ = (("words", ctypes.c_uint32 * _ATTR_WORDS),)


BOUNDARY_FIELDS: dict[str, tuple[dict[str, int], int]] = {
    "rdonly-and-wronly": ({"map_flags": _PROG | sum(_FD_ACCESS_FLAGS)}, errno.EINVAL),
    "max-entries-of-one-direction": ({"max_entries": 1}, errno.EINVAL),
    "max-entries-of-one-flow": ({"max_entries": uapi.keys_for_flows(1)}, 0),
    "max-entries-u32-max": ({"max_entries": 0xFFFFFFFF}, 0),
    "ifindex-1": ({"map_ifindex": 1}, errno.EINVAL),
    "ifindex-u32-max": ({"map_ifindex": 0xFFFFFFFF}, errno.EINVAL),
    "map-extra-passive": ({"map_extra": uapi.PASSIVE}, 0),
    "map-extra-u64-max": ({"map_extra": 0xFFFFFFFFFFFFFFFF}, errno.EINVAL),
    "numa-node-0": ({"map_flags": _PROG | _NUMA_NODE, "numa_node": 0}, errno.EINVAL),
    "numa-node-nonexistent": ({"map_flags": _PROG | _NUMA_NODE, "numa_node": 0xFFFF}, errno.EINVAL),
    "btf-key-type-without-value-type": ({"btf_key_type_id": 1}, errno.EINVAL),
    "btf-fd-invalid": ({"btf_value_type_id": 1, "btf_fd": _NO_SUCH_FD}, errno.EBADF),
    "btf-vmlinux-value-type": ({"btf_vmlinux_value_type_id": 1}, errno.EINVAL),
    "token-fd-invalid": (
        {"map_flags": _PROG | _TOKEN_FD, "map_token_fd": _NO_SUCH_FD},
        errno.EBADF,
    ),
    "excl-prog-hash-null": ({"excl_prog_hash_size": 32}, errno.EINVAL),
    "excl-prog-hash-size-31": (
        {"excl_prog_hash": _UNMAPPED_ADDRESS, "excl_prog_hash_size": 31},
        errno.EINVAL,
    ),
    "excl-prog-hash-unmapped": (
        {"excl_prog_hash": _UNMAPPED_ADDRESS, "excl_prog_hash_size": 32},
        errno.EFAULT,
    ),
    # Ignored without their flag or companion field, as for every map type.
    "inner-map-fd-ignored": ({"inner_map_fd": _NO_SUCH_FD}, 0),
    "numa-node-without-flag": ({"numa_node": 0xFFFF}, 0),
    "token-fd-without-flag": ({"map_token_fd": _NO_SUCH_FD}, 0),
    "btf-fd-without-type": ({"btf_fd": _NO_SUCH_FD}, 0),
}


def _create(fields: dict[str, Any]) -> int:
    """Return the errno of a flow map creation with these attributes, or 0."""
    return errno_of(lambda: bpf.flowmap_create(**fields))


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.3", "FM-1.4", "FM-1.6", "FM-1.10", "MM-5.1")
@pytest.mark.parametrize(
    ("fields", "expected_errno"), BOUNDARY_FIELDS.values(), ids=BOUNDARY_FIELDS
)
def test_map_create_field_at_boundary_has_fixed_errno(
    fields: dict[str, int], expected_errno: int, flowmap_loaded: str
) -> None:
    """A field at its boundary gives one errno and leaves no module reference."""
    assert _create(fields) == expected_errno
    if expected_errno:
        assert modules.refcount(flowmap_loaded) == 0
    else:
        modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.10")
@pytest.mark.usefixtures("flowmap_loaded")
def test_map_create_ifindex_refusal_is_logged() -> None:
    """An ifindex is refused with EINVAL, and the kernel's log says that offload is impossible."""
    attributes = bpf.flowmap_create_attr()
    assert bpf.map_create_log(attributes) == (0, "")
    attributes.map_ifindex = 1
    refusal = (errno.EINVAL, "Modular map types cannot be offloaded.\n")
    assert bpf.map_create_log(attributes) == refusal


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.6", "MM-5.1")
def test_map_flags_except_rdonly_wronly_are_einval(flowmap_loaded: str) -> None:
    """Only the fd access flags may accompany BPF_F_RDONLY_PROG; any other flag gives EINVAL."""
    # Each flag is combined with BPF_F_RDONLY_PROG, which a flow map requires.
    bits = {1 << bit for bit in range(32)} - {_PROG}
    errnos = {hex(bit): _create({"map_flags": _PROG | bit}) for bit in bits}
    assert errnos == {hex(bit): 0 if bit in _FD_ACCESS_FLAGS else errno.EINVAL for bit in bits}
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    assert modules.loaded(flowmap_loaded)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5.1")
@pytest.mark.parametrize(
    "name",
    ["a-b", "a b", "\x7f", "sixteen_letters_"],
    ids=["dash", "space", "del-character", "no-terminating-nul"],
)
def test_map_create_bad_name_releases_module(name: str, flowmap_loaded: str) -> None:
    """An invalid map name is EINVAL, and the map that was already allocated is freed."""
    # The kernel copies the name after map_alloc(), so it has to free the map again.
    with expect_errno(errno.EINVAL):
        bpf.map_create(bpf.flowmap_type(), uapi.KEY_SIZE, uapi.VALUE_SIZE, 8, _PROG, name)
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    assert modules.loaded(flowmap_loaded)


def no_capabilities() -> None:
    """Drop every capability."""
    child_process.drop_capabilities_except()


def userns_root() -> None:
    """Enter a new user namespace, the only one where the process has capabilities."""
    child_process.unshare_user_namespace()


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.9")
@pytest.mark.parametrize(
    "drop_privileges",
    [no_capabilities, userns_root],
    ids=lambda drop_privileges: drop_privileges.__name__,
)
@pytest.mark.parametrize(
    "attributes",
    [{}, {"key_size": 1}, {"map_flags": 0}],
    ids=["valid-attrs", "key-size-1", "without-rdonly-prog"],
)
def test_eperm_precedes_attr_checks(
    drop_privileges: Callable[[], None], attributes: dict[str, int], flowmap_loaded: str
) -> None:
    """A caller without the capabilities gets EPERM, whether or not the attributes are valid."""

    def attempt() -> int:
        drop_privileges()
        return _create(attributes)

    assert child_process.run_in_child(attempt) == errno.EPERM
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.shared_vm
@pytest.mark.clause("FM-2.1")
def test_map_create_in_any_netns_succeeds(make_netns: MakeNetns, flowmap_loaded: str) -> None:
    """A flow map can be created in a netns other than the initial one."""
    with netns.entered(make_netns("fm-other")):
        assert _create({}) == 0
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    assert modules.loaded(flowmap_loaded)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-7.5")
def test_bpf_cmds_on_map_fd_take_no_module_ref(
    make_flowmap: MakeFlowmap, flowmap_loaded: str
) -> None:
    """No bpf() command takes a module reference, with the map's fd in any one attribute word."""
    fd = make_flowmap()
    map_id = bpf.map_info(fd).id
    for command, word in product(range(_COMMAND_COUNT), range(_ATTR_WORDS)):
        attributes = _RawAttr()
        attributes.words[word] = fd
        try:
            returned_fd = bpf.bpf(command, attributes)
        except OSError:
            returned_fd = 0
        if returned_fd:  # 0 is the result of most commands; fd 0 is this process's stdin
            os.close(returned_fd)
        assert modules.refcount(flowmap_loaded) == 1, f"command {command}, word {word}"
    assert bpf.map_info(fd).id == map_id
    assert list(bpf.iterate_keys(fd)) == []
