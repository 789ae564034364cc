# SPDX-License-Identifier: GPL-2.0-only
"""A map of maps gives an inner map up while a program has that one in its hands."""

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
from fixtures.guest.pytest_plugin.fixtures import Flowmap

pytestmark = pytest.mark.usefixtures("near")

SLOT = struct.pack("=I", 0)
XDP_PASS = 2
SMALLEST_FRAME = bytes(14)


def _held_by(fd: int) -> bytes:
    return struct.pack("=I", fd)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


@pytest.mark.clause("FM-9", "MM-4", "MM-7", "RT-1")
def test_inner_map_is_replaced_between_its_lookup_and_its_use(
    flowmap_module: str, make_flowmap: Flowmap, cleanup: ExitStack
) -> None:
    if hash_tables_wait():
        pytest.skip(
            "PREEMPT_RT: a hash table is freed after a grace period, which waits for who is held"
        )
    first, second = bpf.flowmap_create(), make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=first)
    cleanup.callback(os.close, outer)
    bpf.update_raw(outer, SLOT, _held_by(first))
    os.close(first)
    program = Object("sleepable_lookup", {"flows": second, "outer": outer}, ("inside_awake",))
    cleanup.callback(program.close)
    runner = child_process.Waiting(
        lambda: prog_syscalls.run_on_packet(program.program_fd("inside_awake"), SMALLEST_FRAME), FAR
    )
    # Who replaces an inner map waits for the programs, and then so would the test.
    replacer = child_process.Waiting(lambda: bpf.update_raw(outer, SLOT, _held_by(second)))
    others = [bpf.flowmap_create() for _ in range(3)]
    # The first, the second, the outer map's template, and the others; that libbpf had a template
    # of its own is over at some time only.
    references = 3 + len(others)
    _await_references(flowmap_module, references)
    with hold("flowmap_lookup_elem", task=runner.pid) as stop:
        runner.begin()
        stop.reached()
        replacer.begin()
        wait_for(
            "the other map to be in its place",
            lambda: _number(bpf.lookup_raw(outer, SLOT, 4)) == bpf.map_info(second).id,
        )
        # Maps that no program had a hold of are freed meanwhile; this one is not among them.
        for other in others:
            os.close(other)
            references -= 1
            _await_references(flowmap_module, references)
        stop.release()
    assert runner.join() == XDP_PASS
    replacer.join()
    _await_references(flowmap_module, references - 1)


def _await_references(module: str, number: int) -> None:
    wait_for(
        f"no more than {number} references to {module}",
        lambda: modules.references(module) <= number,
    )
    assert modules.references(module) == number
