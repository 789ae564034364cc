# SPDX-License-Identifier: GPL-2.0-only
"""Replacement of an inner flow map while a BPF program is using it."""

import os
import struct
import sys
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import Object
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import FAR, hash_tables_wait, hold
from fixtures.guest.pytest_plugin.plugin_api import Flowmap

pytestmark = pytest.mark.usefixtures("near")

SLOT = struct.pack("=I", 0)
XDP_PASS = 2
SMALLEST_FRAME = bytes(14)


def _fd_value(fd: int) -> bytes:
    return struct.pack("=I", fd)


def _to_int(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


@pytest.mark.clause("FM-9", "MM-4", "MM-7", "RT-1")
def test_inner_map_is_replaced_between_its_lookup_and_its_use(
    flowmap_module: str, make_flowmap: Flowmap, cleanup: ExitStack
) -> None:
    """An inner map that is replaced while a program uses it is freed only after the program."""
    if hash_tables_wait():
        pytest.skip(
            "PREEMPT_RT: freeing a hash table waits for a grace period, and so for the held task"
        )
    first, second = bpf.flowmap_create(), make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=first)
    cleanup.callback(os.close, outer)
    bpf.update_raw(outer, SLOT, _fd_value(first))
    os.close(first)
    program = Object("sleepable_lookup", {"flows": second, "outer": outer}, ("inner_map_xdp",))
    cleanup.callback(program.close)
    runner = child_process.Waiting(
        lambda: prog_syscalls.run_on_packet(program.program_fd("inner_map_xdp"), SMALLEST_FRAME),
        FAR,
    )
    # Replacing an inner map waits for running programs, so a child does it.
    replacer = child_process.Waiting(lambda: bpf.update_raw(outer, SLOT, _fd_value(second)))
    others = [bpf.flowmap_create() for _ in range(3)]
    # References: first, second, the outer map's template, and the others.  libbpf's own template
    # map is freed some time later.
    references = 3 + len(others)
    _await_references(flowmap_module, references)
    with hold("flowmap_lookup_elem", task=runner.pid) as syncpoint:
        runner.begin()
        syncpoint.reached()
        replacer.begin()
        wait_for(
            "the second map to replace the first",
            lambda: _to_int(bpf.lookup_raw(outer, SLOT, 4)) == bpf.map_info(second).id,
        )
        # Maps that no program uses are freed meanwhile; the replaced map is not.
        for other in others:
            os.close(other)
            references -= 1
            _await_references(flowmap_module, references)
        syncpoint.release()
    assert runner.join() == XDP_PASS
    replacer.join()
    _await_references(flowmap_module, references - 1)


def _await_references(module: str, count: int) -> None:
    """Wait for the module's refcount to fall to a value, and check that it is not lower."""
    wait_for(
        f"no more than {count} references to {module}",
        lambda: modules.references(module) <= count,
    )
    assert modules.references(module) == count
