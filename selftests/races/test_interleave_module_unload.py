# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings of module unload with the creation and the free of a map."""

import errno
import os

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of, expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")


def _unloaded(module: str) -> bool:
    return not (modules.loaded(module) or modules.going(module))


@pytest.mark.clause("MM-3.5", "MM-7.1", "RT-1.1")
def test_unload_between_type_lookup_and_module_get_waits(
    flowmap_loaded: str,
) -> None:
    """Unload waits for a map creator before its try_module_get(); the creation gives EINVAL."""
    bpf.flowmap_type()  # cached here, so that the child opens no file
    creator = child_process.GatedChild(lambda: errno_of(bpf.flowmap_create))
    unloader = child_process.GatedChild(lambda: modules.unload(flowmap_loaded))
    with modules.autoload_disabled(), stop_at("try_module_get", tgid=creator.pid) as module_get:
        creator.start()
        module_get.wait_until_held()
        unloader.start()
        wait_for("the module to be going", lambda: modules.going(flowmap_loaded))
        # The creator holds a pointer to the module's operations, so the unload must not finish.
        interleavings.assert_waits(
            unloader.pid, "bpf_map_unregister_ops", lambda: _unloaded(flowmap_loaded)
        )
        module_get.release()
        assert creator.join() == errno.EINVAL
    unloader.join()
    assert not modules.loaded(flowmap_loaded)


@pytest.mark.clause("MM-4.6", "MM-4.7", "MM-7.5", "RT-1.1")
@pytest.mark.parametrize("stop_function", ["bpf_map_free_deferred", "flowmap_free", "module_put"])
def test_unload_between_last_map_put_and_free_is_refused(
    flowmap_loaded: str, stop_function: str
) -> None:
    """Unload is refused between the last put of a map and the end of its deferred free."""
    fd = bpf.flowmap_create()
    with stop_at(stop_function, comm="kworker") as map_free:
        os.close(fd)
        map_free.wait_until_held()
        with expect_errno(errno.EWOULDBLOCK):
            modules.unload(flowmap_loaded)
        map_free.release()
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)
