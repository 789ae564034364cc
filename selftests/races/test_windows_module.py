# SPDX-License-Identifier: GPL-2.0-only
"""A module that goes, at the places where a map or a lookup of its type is half way."""

import errno
import os

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import modules, process
from fixtures.guest.refusal import errno_of, refused
from fixtures.guest.stop_points import hold
from fixtures.guest.wait import wait_for
from selftests.races import windows

pytestmark = pytest.mark.usefixtures("near")


def _gone(module: str) -> bool:
    return not (modules.loaded(module) or modules.going(module))


@pytest.mark.clause("MM-7", "MM-3", "RT-1")
def test_module_goes_between_the_lookup_of_its_type_and_the_reference(
    flowmap_module: str,
) -> None:
    bpf.flowmap_type()  # read once, so that the child opens no file
    creator = process.Waiting(lambda: errno_of(bpf.flowmap_create))
    unloader = process.Waiting(lambda: modules.unload(flowmap_module))
    with modules.autoload_disabled(), hold("try_module_get", task=creator.pid) as stop:
        creator.begin()
        stop.reached()
        unloader.begin()
        wait_for("the module to be on its way out", lambda: modules.going(flowmap_module))
        # What is looked at in the creator's hands has to stay: in vain does one wait for its end.
        windows.in_vain("the module to be gone", lambda: _gone(flowmap_module))
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
