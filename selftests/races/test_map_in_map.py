# SPDX-License-Identifier: GPL-2.0-only
"""Replacement of an inner flow map while a BPF program is using it."""

import os
import struct
import sys
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import HELD_CPU, stop_at
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

SLOT = struct.pack("=I", 0)
XDP_PASS = 2
SMALLEST_FRAME = bytes(14)


def _fd_value(fd: int) -> bytes:
    return struct.pack("=I", fd)


def _to_int(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


@pytest.mark.clause("MM-4.5", "RT-1.1")
def test_inner_map_replaced_under_running_prog_is_not_freed(
    flowmap_loaded: str, make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """An inner map that is replaced while a program uses it is freed only after the program."""
    first, second = bpf.flowmap_create(), make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=first)
    cleanup.callback(os.close, outer)
    bpf.update_raw(outer, SLOT, _fd_value(first))
    os.close(first)
    program = BpfObject("sleepable_lookup", {"flows": second, "outer": outer}, ("inner_map_xdp",))
    cleanup.callback(program.close)
    runner = child_process.GatedChild(
        lambda: prog_syscalls.run_on_packet(program.program_fd("inner_map_xdp"), SMALLEST_FRAME),
        HELD_CPU,
    )
    # Replacing an inner map waits for running programs, so a child does it.
    replacer = child_process.GatedChild(lambda: bpf.update_raw(outer, SLOT, _fd_value(second)))
    others = [bpf.flowmap_create() for _ in range(3)]
    # References: first, second, the outer map's template, and the others.  libbpf's own template
    # map is freed some time later.
    references = 3 + len(others)
    _await_references(flowmap_loaded, references)
    with stop_at("flowmap_lookup_elem", tgid=runner.pid) as syncpoint:
        runner.start()
        syncpoint.wait_until_held()
        replacer.start()
        wait_for(
            "the second map to replace the first",
            lambda: _to_int(bpf.lookup_raw(outer, SLOT, 4)) == bpf.map_info(second).id,
        )
        # During that time, maps that no program uses are freed; the replaced map is not.
        for other in others:
            os.close(other)
            references -= 1
            _await_references(flowmap_loaded, references)
        syncpoint.release()
    assert runner.join() == XDP_PASS
    replacer.join()
    _await_references(flowmap_loaded, references - 1)


def _await_references(module: str, count: int) -> None:
    """Wait for the module's refcount to fall to a value, and check that it is not lower."""
    wait_for(
        f"no more than {count} references to {module}",
        lambda: modules.refcount(module) <= count,
    )
    assert modules.refcount(module) == count
