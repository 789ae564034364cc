# SPDX-License-Identifier: GPL-2.0-only
"""Map queries (BPF_OBJ_GET_INFO_BY_FD, id walks) while the type's module is unloaded."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")


@pytest.mark.clause("MM-3.5", "MM-6.1", "MM-7.1", "MM-8.1", "RT-1.1")
def test_map_queries_during_module_exit_have_fixed_errnos(
    flowmap_loaded: str, cleanup: ExitStack
) -> None:
    """While the module exits, creation gives EINVAL, the freed map's id ENOENT; other maps work."""
    hash_map = cleanup.enter_context(
        bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8))
    )
    flowmap_fd = bpf.flowmap_create()
    freed_id = bpf.map_info(flowmap_fd).id
    os.close(flowmap_fd)
    modules.wait_until_unreferenced(flowmap_loaded)
    unloader = child_process.GatedChild(lambda: modules.unload(flowmap_loaded))
    with stop_at("bpf_map_unregister_ops", tgid=unloader.pid) as syncpoint:
        unloader.start()
        syncpoint.wait_until_held()
        assert modules.going(flowmap_loaded)
        assert errno_of(bpf.flowmap_create) == errno.EINVAL
        assert errno_of(lambda: bpf.map_fd_by_id(freed_id)) == errno.ENOENT
        info = bpf.map_info(hash_map)
        assert (info.type, info.name) == (bpf_attr.MAP_TYPE_HASH, b"")
        assert info.id in bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)
        syncpoint.release()
    unloader.join()
    assert not modules.loaded(flowmap_loaded)
    assert errno_of(lambda: bpf.map_fd_by_id(freed_id)) == errno.ENOENT
