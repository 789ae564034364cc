# SPDX-License-Identifier: GPL-2.0-only
"""Guest tests that each leak one thing, or put one reference too often.

A kernel bug is simulated: while the object is freed, one kernel function does nothing, so that
one step of the release is left out.  ../test_verdicts.py has the lines of each verdict.
"""

import os
import subprocess
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import dummy_map_module, map_syscalls
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.function_override import fail_function
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

_ARRAY = 2  # BPF_MAP_TYPE_ARRAY, which no module provides
_KMEMLEAK = Path("/sys/kernel/debug/kmemleak")


def _close_without(function: str, fd: int) -> None:
    """Close a descriptor, and leave out what a kernel function does then."""
    with fail_function(function) as calls:
        os.close(fd)
        wait_for(f"{function}() to be called", calls)


def test_leaks_module_reference() -> None:
    """A map of the dummy type is never freed, and never puts its module."""
    dummy_map_module.load()
    _close_without("bpf_map_free_deferred", dummy_map_module.create_map())


def test_leaks_map() -> None:
    """A map has no file any more, and is still in the list of maps."""
    _close_without("bpf_map_release", map_syscalls.map_create(_ARRAY, 4, 8, 1))


def test_leaks_slab_object(
    router: Router, make_flowmap: MakeFlowmap, open_connection: OpenConnection
) -> None:
    """The entry of a flow is not freed when the only view that has it has gone."""
    make_flowmap(router.namespace, max_entries=uapi.keys_for_flows(1))
    open_connection(IPPROTO_UDP, 4).wait_offloaded()
    fd = make_flowmap(router.namespace)
    open_connection(IPPROTO_UDP, 4).wait_offloaded()
    with fail_function("kvfree_call_rcu"):
        os.close(fd)
        wait_for("the map to be gone", lambda: modules.refcount(modules.FLOWMAP_MODULE) == 1)
        # Its view leaves in a work item; the second of two new views joins in a later one.
        for _ in range(2):
            make_flowmap(router.namespace)


def test_leaks_unreferenced_memory() -> None:
    """The memory of an array is not freed; it has left every list of the kernel."""
    if not _KMEMLEAK.exists():
        pytest.skip("no kmemleak, which the profile leak has")
    _close_without("bpf_map_free_deferred", map_syscalls.map_create(_ARRAY, 4, 8, 1))


def test_leaks_device() -> None:
    subprocess.run(["ip", "link", "add", "canary0", "type", "dummy"], check=True)


def test_leaks_cgroup() -> None:
    Path("/sys/fs/cgroup/canary").mkdir()


def test_puts_module_reference_twice() -> None:
    """The map of a module does not count its reference, and puts it all the same.

    The function that does nothing returns a value that means success.
    """
    dummy_map_module.load()
    with fail_function("try_module_get"):
        fd = dummy_map_module.create_map()
    os.close(fd)
