# SPDX-License-Identifier: GPL-2.0-only
"""Every field of BPF_MAP_CREATE at its edges, every caller, and every other command.

Each has one errno (the table is in docs/series.md), and a refusal leaves no reference to the
module, at whichever step of the creation it comes.
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
from fixtures.guest.core.expect_errno import errno_of, refused
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.fixtures import Flowmap, Namespaces

_PROG = bpf_attr.F_RDONLY_PROG
_NUMA_NODE = 1 << 2
_TOKEN_FD = 1 << 16
_OF_DESCRIPTORS = (bpf_attr.F_RDONLY, bpf_attr.F_WRONLY)
# More than this kernel has of either; what is unknown is refused.
_COMMANDS = 48
_WORDS = 40
_UNMAPPED = 0xDEAD0000
_NO_SUCH_FD = 0x7FFFFFFF


class _Words(ctypes.Structure):
    """``union bpf_attr``, without saying which command's."""

    _fields_ = (("words", ctypes.c_uint32 * _WORDS),)


FIELDS: dict[str, tuple[dict[str, int], int]] = {
    "both kinds of descriptor": ({"map_flags": _PROG | sum(_OF_DESCRIPTORS)}, errno.EINVAL),
    "most entries": ({"max_entries": 0xFFFFFFFF}, 0),
    "device": ({"map_ifindex": 1}, errno.EINVAL),
    "largest device": ({"map_ifindex": 0xFFFFFFFF}, errno.EINVAL),
    "largest extra": ({"map_extra": 0xFFFFFFFFFFFFFFFF}, errno.EINVAL),
    "node": ({"map_flags": _PROG | _NUMA_NODE, "numa_node": 0}, errno.EINVAL),
    "no such node": ({"map_flags": _PROG | _NUMA_NODE, "numa_node": 0xFFFF}, errno.EINVAL),
    "key type alone": ({"btf_key_type_id": 1}, errno.EINVAL),
    "types of no BTF": ({"btf_value_type_id": 1, "btf_fd": _NO_SUCH_FD}, errno.EBADF),
    "type of vmlinux": ({"btf_vmlinux_value_type_id": 1}, errno.EINVAL),
    "token that is none": (
        {"map_flags": _PROG | _TOKEN_FD, "map_token_fd": _NO_SUCH_FD},
        errno.EBADF,
    ),
    "size of no hash": ({"excl_prog_hash_size": 32}, errno.EINVAL),
    "hash of the wrong size": (
        {"excl_prog_hash": _UNMAPPED, "excl_prog_hash_size": 31},
        errno.EINVAL,
    ),
    "hash that is not there": (
        {"excl_prog_hash": _UNMAPPED, "excl_prog_hash_size": 32},
        errno.EFAULT,
    ),
    # What a flag or another field would have to ask for is not looked at, as of every type.
    "inner map": ({"inner_map_fd": _NO_SUCH_FD}, 0),
    "node without its flag": ({"numa_node": 0xFFFF}, 0),
    "token without its flag": ({"map_token_fd": _NO_SUCH_FD}, 0),
    "BTF of no type": ({"btf_fd": _NO_SUCH_FD}, 0),
}


def _create(fields: dict[str, Any]) -> int:
    """The errno of a creation, or 0."""
    return errno_of(lambda: bpf.flowmap_create(**fields))


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1", "MM-5")
@pytest.mark.parametrize(("fields", "answer"), FIELDS.values(), ids=FIELDS)
def test_field_has_one_answer(fields: dict[str, int], answer: int, flowmap_module: str) -> None:
    assert _create(fields) == answer
    if answer:
        assert modules.references(flowmap_module) == 0
    else:
        modules.await_unreferenced(modules.FLOWMAP)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1", "MM-5")
@pytest.mark.usefixtures("flowmap_module")
def test_kernel_says_why_a_map_cannot_be_on_a_device() -> None:
    attributes = bpf.flowmap_attributes()
    assert bpf.refused_map(attributes) == (0, "")
    attributes.map_ifindex = 1
    answer = (errno.EINVAL, "Modular map types cannot be offloaded.\n")
    assert bpf.refused_map(attributes) == answer


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1", "MM-5")
def test_flags_are_refused_but_for_those_of_descriptors(flowmap_module: str) -> None:
    # Each beside the one that a flow map must have.
    bits = {1 << bit for bit in range(32)} - {_PROG}
    answers = {hex(bit): _create({"map_flags": _PROG | bit}) for bit in bits}
    assert answers == {hex(bit): 0 if bit in _OF_DESCRIPTORS else errno.EINVAL for bit in bits}
    modules.await_unreferenced(modules.FLOWMAP)
    assert modules.loaded(flowmap_module)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5")
@pytest.mark.parametrize("name", ["a-b", "a b", "\x7f", "sixteen_letters_"])
def test_bad_name_is_refused_after_the_map_was_made(name: str, flowmap_module: str) -> None:
    # The name is copied once the type's own code has run: what that made must go again.
    with refused(errno.EINVAL):
        bpf.map_create(bpf.flowmap_type(), uapi.KEY_SIZE, uapi.VALUE_SIZE, 8, _PROG, name)
    modules.await_unreferenced(modules.FLOWMAP)
    assert modules.loaded(flowmap_module)


def anybody() -> None:
    """A process without any capability."""
    child_process.keep_capabilities()


def root_of_a_user_namespace() -> None:
    """A process with every capability, but in a user namespace."""
    child_process.enter_user_namespace()


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1", "MM-3")
@pytest.mark.parametrize(
    "become", [anybody, root_of_a_user_namespace], ids=lambda become: become.__name__
)
@pytest.mark.parametrize("wrong", [{}, {"key_size": 1}, {"map_flags": 0}], ids=str)
def test_who_may_not_is_told_so_before_anything_else(
    become: Callable[[], None], wrong: dict[str, int], flowmap_module: str
) -> None:
    def attempt() -> int:
        become()
        return _create(wrong)

    assert child_process.in_child(attempt) == errno.EPERM
    assert modules.references(flowmap_module) == 0


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1", "SN-2")
def test_map_may_be_made_in_any_network_namespace(
    namespace: Namespaces, flowmap_module: str
) -> None:
    with netns.entered(namespace("fm-other")):
        assert _create({}) == 0
    modules.await_unreferenced(modules.FLOWMAP)
    assert modules.loaded(flowmap_module)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-7", "MM-5")
def test_other_commands_take_no_reference(make_flowmap: Flowmap, flowmap_module: str) -> None:
    """The map's descriptor in every field of every command, and nothing else in any."""
    fd = make_flowmap()
    identity = bpf.map_info(fd).id
    for command, word in product(range(_COMMANDS), range(_WORDS)):
        attributes = _Words()
        attributes.words[word] = fd
        try:
            made = bpf.bpf(command, attributes)
        except OSError:
            made = 0
        if made:  # 0 is this process's own standard input, and the answer of most commands
            os.close(made)
        assert modules.references(flowmap_module) == 1, f"command {command}, word {word}"
    assert bpf.map_info(fd).id == identity
    assert list(bpf.keys(fd)) == []
