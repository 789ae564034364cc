# SPDX-License-Identifier: GPL-2.0-only
"""Lookups where a program may sleep and where it cannot, whatever the program's type."""

import errno
import os
import struct
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject, LoadError
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

MAY_SLEEP = (
    "inner_map_in_work",
    "static_function_in_work",
    "loop_in_work",
    "inner_map_loop_in_work",
    "work_of_xdp",
    "work_of_cgroup",
    "static_function_in_both",
    "sleepable_fentry",
    "sleepable_uprobe",
    "sleepable_iterator",
    "loop_in_syscall",
)
CANNOT_SLEEP = (
    "allowed_in_timer",
    "allowed_in_loop",
    "allowed_fentry",
    "allowed_uprobe",
    "allowed_iterator",
)


@pytest.mark.clause("MM-9.2", "MM-9.5")
def test_lookup_is_rejected_exactly_where_the_program_may_sleep(
    make_flowmap: MakeFlowmap, flowmap_loaded: str, cleanup: ExitStack
) -> None:
    """A flow map cannot be used in a sleepable program, or where a callback may sleep.

    The place of the lookup counts: functions and loops within such a callback, and inner maps.
    Timers, loops and programs of the same types that cannot sleep may look flows up.
    """
    flowmap = make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=flowmap)
    cleanup.callback(os.close, outer)
    bpf.update_raw(outer, bytes(4), struct.pack("=I", flowmap))
    maps = {"flows": flowmap, "outer": outer}
    references = modules.refcount(flowmap_loaded)
    wrong = []
    for program in CANNOT_SLEEP:
        try:
            BpfObject("sleepable_contexts", maps, (program,)).close()
        except LoadError as error:
            wrong.append(f"{program} was refused: {str(error)[-400:]}")
    for program in MAY_SLEEP:
        try:
            BpfObject("sleepable_contexts", maps, (program,)).close()
        except LoadError as error:
            if error.errno != errno.EINVAL or "leep" not in str(error):
                wrong.append(f"{program} was refused for another reason: {str(error)[-400:]}")
        else:
            wrong.append(f"{program} was loaded")
    assert not wrong, "\n".join(wrong)
    assert modules.refcount(flowmap_loaded) == references
