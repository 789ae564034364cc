# SPDX-License-Identifier: GPL-2.0-only
"""Many loads and unloads of the flow map's own module, with maps, and what they leave behind."""

import os
from pathlib import Path

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns
from fixtures.guest.runtime.hypothesis_support import scaled_examples

CYCLES = 24
"""Cycles of a plain run under emulation; a soak run has as many more as its user wants."""
_MAP_EVERY = 4
_NOISE_BYTES = 8 * 16384
"""Stacks of kernel threads that come and go; each cycle's module takes at least 16384 bytes."""
_LEAK_BYTES = 1024
"""Lower bound of what a leak of a kobject or a map takes in each cycle."""
_MEMINFO = Path("/proc/meminfo")
_SYS_SLAB = Path("/sys/kernel/slab")


def _unreclaimable_slab() -> int:
    """Return the bytes of unreclaimable slab memory after every cache was shrunk."""
    for shrink in _SYS_SLAB.glob("*/shrink"):
        shrink.write_text("1\n")
    lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    return int(lines["SUnreclaim"].split()[0]) * 1024


@pytest.mark.soak
@pytest.mark.clause("MM-6.4", "RT-3.1")
@pytest.mark.deadline(300)
def test_flowmap_module_cycles_leave_nothing(flowmap_loaded: str, make_netns: MakeNetns) -> None:
    """Loads and unloads of the flow map's module leave no memory, map or reference behind.

    "1,000 load/unload cycles leak nothing" (MM-6): a run takes a part of them, a soak run the
    rest.  Every few cycles a map exists, alternately in two namespaces.  The module's own
    dependency has exactly one reference to lose each time.
    """
    namespaces = [make_netns(name) for name in ("fm-cycle", "fm-cycles")]
    path = modules.module_path(flowmap_loaded)
    ids_before = bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)
    modules.unload(flowmap_loaded)
    users_before = modules.refcount(modules.FLOWTABLE_MODULE)
    cycles = scaled_examples(CYCLES)

    def cycle(number: int) -> None:
        modules.load_file(path)
        assert modules.refcount(modules.FLOWTABLE_MODULE) == users_before + 1
        if number % _MAP_EVERY == 0:
            with netns.entered(namespaces[number // _MAP_EVERY % 2]):
                os.close(bpf.flowmap_create())
            modules.wait_until_unreferenced(flowmap_loaded)
        modules.unload(flowmap_loaded)
        assert modules.refcount(modules.FLOWTABLE_MODULE) == users_before

    # The first cycles leave caches behind.
    for number in range(2 * _MAP_EVERY):
        cycle(number)
    vmalloc_before, slab_before = modules.vmalloc_bytes_used(), _unreclaimable_slab()
    for number in range(cycles):
        cycle(number)
    # Work items free the module's text and the maps.
    print(
        f"{cycles} cycles: vmalloc {modules.vmalloc_bytes_used() - vmalloc_before:+d},"
        f" slab {_unreclaimable_slab() - slab_before:+d} bytes"
    )
    wait_for(
        "the modules' memory to be freed",
        lambda: modules.vmalloc_bytes_used() - vmalloc_before < _NOISE_BYTES,
        interval=0.05,
    )
    wait_for(
        "the slab memory to be freed",
        lambda: _unreclaimable_slab() - slab_before < cycles * _LEAK_BYTES,
        interval=0.05,
    )
    assert bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID) == ids_before
