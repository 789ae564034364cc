# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings of module unload with the creation and the free of a map."""

import errno
import os

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of, refused
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import hold
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


def _unloaded(module: str) -> bool:
    return not (modules.loaded(module) or modules.going(module))


@pytest.mark.clause("MM-7", "MM-3", "RT-1")
def test_module_goes_between_the_lookup_of_its_type_and_the_reference(
    flowmap_module: str,
) -> None:
    """Unload waits for a map creator before its try_module_get(); the creation gives EINVAL."""
    bpf.flowmap_type()  # cached here, so that the child opens no file
    creator = child_process.Waiting(lambda: errno_of(bpf.flowmap_create))
    unloader = child_process.Waiting(lambda: modules.unload(flowmap_module))
    with modules.autoload_disabled(), hold("try_module_get", task=creator.pid) as module_get:
        creator.begin()
        module_get.reached()
        unloader.begin()
        wait_for("the module to be going", lambda: modules.going(flowmap_module))
        # The creator holds a pointer to the module's operations, so the unload must not finish.
        interleavings.in_vain("the module to be unloaded", lambda: _unloaded(flowmap_module))
        module_get.release()
        assert creator.join() == errno.EINVAL
    unloader.join()
    assert not modules.loaded(flowmap_module)


@pytest.mark.clause("MM-4", "MM-7", "RT-1")
@pytest.mark.parametrize("stop_function", ["bpf_map_free_deferred", "flowmap_free", "module_put"])
def test_unload_between_the_last_reference_to_a_map_and_its_free(
    flowmap_module: str, stop_function: str
) -> None:
    """Unload is refused between the last put of a map and the end of its deferred free."""
    fd = bpf.flowmap_create()
    with hold(stop_function, comm="kworker") as map_free:
        os.close(fd)
        map_free.reached()
        with refused(errno.EWOULDBLOCK):
            modules.unload(flowmap_module)
        map_free.release()
    modules.await_unreferenced(flowmap_module)
    modules.unload(flowmap_module)
