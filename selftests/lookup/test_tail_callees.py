# SPDX-License-Identifier: GPL-2.0-only
"""Programs of each type with a flow map in program arrays: refused where their type may sleep."""

import errno
import os
import struct
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

MAY_SLEEP = (
    "kprobe",
    "kretprobe",
    "uprobe",
    "tracepoint",
    "raw_tracepoint",
    "tp_btf",
    "fentry",
    "fexit",
    "iter",
    "lsm",
)
NEVER_SLEEPS = ("xdp", "tc", "cgroup_skb", "connect", "socket")
# How the program looks flows up: directly, in an inner map, in a function of its own.
_LOOKUPS = ("with", "inner", "function")
_SLOT = bytes(4)


def _enter(array: int, program: int) -> int:
    """Put a program into a program array; return the errno, or 0."""
    try:
        bpf.update_raw(array, _SLOT, struct.pack("=I", program))
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.clause("MM-9.6", "MM-9.7", "MM-9.8")
@pytest.mark.parametrize("types", [MAY_SLEEP, NEVER_SLEEPS], ids=["may-sleep", "never-sleeps"])
def test_program_with_lookup_enters_prog_array_unless_its_type_may_sleep(
    make_flowmap: MakeFlowmap, flowmap_loaded: str, cleanup: ExitStack, types: tuple[str, ...]
) -> None:
    """A program array takes a program with a flow map exactly if programs of its type never sleep.

    Programs of every type load, and the array takes the same program without a flow map.  A refused
    program can be unloaded, and the array is as usable as before.
    """
    flowmap = make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=flowmap)
    cleanup.callback(os.close, outer)
    bpf.update_raw(outer, _SLOT, struct.pack("=I", flowmap))
    maps = {"flows": flowmap, "outer": outer}
    references = modules.refcount(flowmap_loaded)
    expected = errno.EINVAL if types is MAY_SLEEP else 0
    wrong = []
    for name in types:
        for lookup in _LOOKUPS:
            with ExitStack() as stack:
                callees = [f"{name}_{lookup}", f"{name}_without"]
                loaded = BpfObject("tail_callees", maps, tuple(callees))
                stack.callback(loaded.close)
                array = loaded.map_fd("programs")
                seen = [_enter(array, loaded.program_fd(callee)) for callee in callees]
                if seen != [expected, 0]:
                    wrong.append(f"{name}_{lookup}: {seen}")
    assert not wrong
    assert modules.refcount(flowmap_loaded) == references
