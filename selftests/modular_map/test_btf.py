# SPDX-License-Identifier: GPL-2.0-only
"""Type information (BTF) of a flow map: the kernel's own, and what a map's creator passes."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import series, uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.btf_builder import BtfBuilder
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import btf, modules
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

# Adds a type for a key or value of this size in bytes, and returns its id.
AddType = Callable[[BtfBuilder, int], int]


def _struct(types: BtfBuilder, size: int) -> int:
    return types.add_struct_of_bytes("any_name", size)


def _short_struct(types: BtfBuilder, size: int) -> int:
    return _struct(types, size - 1)


def _long_struct(types: BtfBuilder, size: int) -> int:
    return _struct(types, size + 1)


def _array(types: BtfBuilder, size: int) -> int:
    return types.add_bytes(size)


def _union(types: BtfBuilder, size: int) -> int:
    return types.add_struct("any_name", size, types.add_bytes(size), union=True)


def _integer(types: BtfBuilder, _: int) -> int:
    return types.add_int("number", 8)


WRONG_TYPES: dict[str, AddType] = {
    "array": _array,
    "union": _union,
    "integer": _integer,
    "short-struct": _short_struct,
    "long-struct": _long_struct,
}


def _create_errno(
    cleanup: ExitStack, add_key: AddType, add_value: AddType, value_size: int = uapi.VALUE_SIZE
) -> int:
    """Return the errno of a flow map creation with these types, or 0."""
    types = BtfBuilder()
    key, value = add_key(types, uapi.KEY_SIZE), add_value(types, value_size)
    fd = types.load()
    cleanup.callback(os.close, fd)
    return errno_of(
        lambda: bpf.flowmap_create(
            value_size=value_size, btf_fd=fd, btf_key_type_id=key, btf_value_type_id=value
        )
    )


@pytest.mark.shared_vm
@pytest.mark.clause("FM-3.2")
@pytest.mark.parametrize("name", series.UAPI_STRUCTS)
@pytest.mark.usefixtures("flowmap_unloaded")
def test_vmlinux_btf_has_uapi_struct_without_module(name: str) -> None:
    """The type information of the kernel itself has the structures of key and value.

    Programs that include vmlinux.h need them, whether or not the map's module is loaded.
    """
    assert f"\0{name}\0".encode() in btf.VMLINUX.read_bytes()


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.8", "FM-13.1")
@pytest.mark.parametrize("value_size", [uapi.VALUE_SIZE_VER0, uapi.VALUE_SIZE_VER0 + 1, 128])
@pytest.mark.usefixtures("flowmap_loaded")
def test_map_create_with_struct_btf_succeeds(cleanup: ExitStack, value_size: int) -> None:
    """Structures of the right sizes are accepted as key and value, whatever their names."""
    assert _create_errno(cleanup, _struct, _struct, value_size) == 0
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.8", "MM-5.3")
@pytest.mark.parametrize("add_type", WRONG_TYPES.values(), ids=WRONG_TYPES)
@pytest.mark.parametrize("place", ["key", "value", "both"])
@pytest.mark.usefixtures("flowmap_loaded")
def test_map_create_with_other_btf_is_einval(
    cleanup: ExitStack, place: str, add_type: AddType
) -> None:
    """A key or value type that is no structure of the right size gives EINVAL and no reference."""
    add_key = _struct if place == "value" else add_type
    add_value = _struct if place == "key" else add_type
    assert _create_errno(cleanup, add_key, add_value) == errno.EINVAL
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.8", "MM-5.3")
@pytest.mark.usefixtures("flowmap_loaded")
def test_map_create_with_btf_of_other_value_size_is_einval(cleanup: ExitStack) -> None:
    """The value type has to have the size that the map has, not the size of the kernel's."""

    def current_size(types: BtfBuilder, _: int) -> int:
        return _struct(types, uapi.VALUE_SIZE)

    for size in (uapi.VALUE_SIZE_VER0, uapi.VALUE_SIZE - 1):
        assert _create_errno(cleanup, _struct, current_size, size) == errno.EINVAL
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.8")
def test_map_without_btf_is_created(make_flowmap: MakeFlowmap) -> None:
    """A creator may pass no type information at all."""
    assert bpf.map_info(make_flowmap()).key_size == uapi.KEY_SIZE
