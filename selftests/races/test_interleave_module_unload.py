# SPDX-License-Identifier: GPL-2.0-only
"""A module that goes, at the places where a map or a lookup of its type is half way."""

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


def _gone(module: str) -> bool:
    return not (modules.loaded(module) or modules.going(module))


@pytest.mark.clause("MM-7", "MM-3", "RT-1")
def test_module_goes_between_the_lookup_of_its_type_and_the_reference(
    flowmap_module: str,
) -> None:
    bpf.flowmap_type()  # read once, so that the child opens no file
    creator = child_process.Waiting(lambda: errno_of(bpf.flowmap_create))
    unloader = child_process.Waiting(lambda: modules.unload(flowmap_module))
    with modules.autoload_disabled(), hold("try_module_get", task=creator.pid) as stop:
        creator.begin()
        stop.reached()
        unloader.begin()
        wait_for("the module to be on its way out", lambda: modules.going(flowmap_module))
        # What is looked at in the creator's hands has to stay: in vain does one wait for its end.
        interleavings.in_vain("the module to be gone", lambda: _gone(flowmap_module))
        stop.release()
        assert creator.join() == errno.EINVAL
    unloader.join()
    assert not modules.loaded(flowmap_module)


@pytest.mark.clause("MM-4", "MM-7", "RT-1")
@pytest.mark.parametrize("place", ["bpf_map_free_deferred", "flowmap_free", "module_put"])
def test_unload_between_the_last_reference_to_a_map_and_its_free(
    flowmap_module: str, place: str
) -> None:
    fd = bpf.flowmap_create()
    with hold(place, comm="kworker") as stop:
        os.close(fd)
        stop.reached()
        with refused(errno.EWOULDBLOCK):
            modules.unload(flowmap_module)
        stop.release()
    modules.await_unreferenced(flowmap_module)
    modules.unload(flowmap_module)
