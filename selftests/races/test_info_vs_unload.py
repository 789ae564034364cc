# SPDX-License-Identifier: GPL-2.0-only
"""Asking the kernel about maps while the module of a type goes."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import hold

pytestmark = pytest.mark.usefixtures("near")


@pytest.mark.clause("MM-10", "MM-7", "MM-6", "RT-1")
def test_looking_around_between_the_last_use_of_a_module_and_its_end(
    flowmap_module: str, cleanup: ExitStack
) -> None:
    other = cleanup.enter_context(bpf.closing(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8)))
    gone = bpf.flowmap_create()
    number = bpf.map_info(gone).id
    os.close(gone)
    modules.await_unreferenced(flowmap_module)
    unloader = child_process.Waiting(lambda: modules.unload(flowmap_module))
    with hold("bpf_map_unregister_ops", task=unloader.pid) as stop:
        unloader.begin()
        stop.reached()
        assert modules.going(flowmap_module)
        assert errno_of(bpf.flowmap_create) == errno.EINVAL
        assert errno_of(lambda: bpf.map_by_id(number)) == errno.ENOENT
        known = bpf.map_info(other)
        assert (known.type, known.name) == (bpf_attr.MAP_TYPE_HASH, b"")
        assert known.id in bpf.identities(bpf_attr.Command.MAP_GET_NEXT_ID)
        stop.release()
    unloader.join()
    assert not modules.loaded(flowmap_module)
    assert errno_of(lambda: bpf.map_by_id(number)) == errno.ENOENT
