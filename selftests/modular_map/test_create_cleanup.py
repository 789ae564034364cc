# SPDX-License-Identifier: GPL-2.0-only
"""Creations that fail after the map was allocated: no descriptor left, bad BTF, a killed creator.

"A failed creation leaves no reference behind, at every point where it can fail" (MM-5).  After
each failure a creation succeeds as before.
"""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.btf_builder import BtfBuilder
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns

_ATTEMPTS = 5
_NO_SUCH_TYPE = 1000


def _map_ids() -> list[int]:
    return bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Lower RLIMIT_NOFILE of this process, so that it cannot open another descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _assert_nothing_left(module: str, ids_before: list[int], namespace: str) -> None:
    """Assert that no map and no reference is left, and that another map can be created."""
    modules.wait_until_unreferenced(module)
    assert _map_ids() == ids_before
    with bpf.open_flowmap(namespace) as fd:
        assert modules.refcount(module) == 1
        assert list(bpf.iterate_keys(fd)) == []
    modules.wait_until_unreferenced(module)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5.4")
def test_map_create_without_free_descriptor_is_emfile_and_leaves_nothing(
    flowmap_loaded: str, make_netns: MakeNetns
) -> None:
    """Creation by a process that may open no descriptor is EMFILE, and the map is freed again.

    By then the map has an id, and it may have been opened by that.
    """
    ns, ids_before = make_netns("fm-emfile"), _map_ids()
    bpf.flowmap_type()  # cached here, because it opens a file
    with netns.entered(ns), no_descriptor_left():
        errnos = [errno_of(bpf.flowmap_create) for _ in range(_ATTEMPTS)]
    assert errnos == [errno.EMFILE] * _ATTEMPTS
    _assert_nothing_left(flowmap_loaded, ids_before, ns)
    modules.unload(flowmap_loaded)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-4.1")
def test_map_open_without_free_descriptor_is_emfile_and_takes_no_ref(
    flowmap_loaded: str, make_flowmap: MakeFlowmap
) -> None:
    """BPF_MAP_GET_FD_BY_ID without a free descriptor is EMFILE and takes no reference."""
    fd = make_flowmap()
    map_id = bpf.map_info(fd).id
    for _ in range(3):
        with no_descriptor_left():
            assert errno_of(lambda: bpf.map_fd_by_id(map_id)) == errno.EMFILE
    os.close(bpf.map_fd_by_id(map_id))
    os.close(fd)
    modules.wait_until_unreferenced(flowmap_loaded)
    assert map_id not in _map_ids()


@pytest.mark.shared_vm
@pytest.mark.clause("MM-5.3", "FM-1.8")
def test_map_create_with_unusable_btf_leaves_nothing(
    flowmap_loaded: str, make_netns: MakeNetns, cleanup: ExitStack
) -> None:
    """Type information that is none, the kernel's own, or lacks the types is refused.

    The map is allocated before its types are checked, so each refusal has to free it again.
    """
    ns, ids_before = make_netns("fm-btf"), _map_ids()
    types = BtfBuilder()
    key = types.add_struct_of_bytes("key", uapi.KEY_SIZE)
    value = types.add_struct_of_bytes("value", uapi.VALUE_SIZE)
    btf = types.load()
    cleanup.callback(os.close, btf)
    no_btf = os.open("/dev/null", os.O_RDONLY)
    cleanup.callback(os.close, no_btf)
    vmlinux = bpf.bpf(bpf_attr.Command.BTF_GET_FD_BY_ID, bpf_attr.GetIdAttr(start=1))
    cleanup.callback(os.close, vmlinux)
    refusals = {
        "not BTF": (no_btf, key, value, errno.EINVAL),
        "BTF of the kernel": (vmlinux, key, value, errno.EACCES),
        "no such key type": (btf, _NO_SUCH_TYPE, value, errno.EINVAL),
        "no such value type": (btf, key, _NO_SUCH_TYPE, errno.EINVAL),
        "void key": (btf, 0, value, errno.EINVAL),
        "key and value swapped": (btf, value, key, errno.EINVAL),
    }
    for what, (fd, key_type, value_type, expected) in refusals.items():
        with netns.entered(ns):
            refused = errno_of(
                lambda ids=(fd, key_type, value_type): bpf.flowmap_create(  # type: ignore[misc]
                    btf_fd=ids[0], btf_key_type_id=ids[1], btf_value_type_id=ids[2]
                )
            )
        assert refused == expected, what
        _assert_nothing_left(flowmap_loaded, ids_before, ns)
    # The same BTF is as usable as before, and the map says what it was made with.
    with (
        netns.entered(ns),
        bpf.closing_fd(
            bpf.flowmap_create(btf_fd=btf, btf_key_type_id=key, btf_value_type_id=value)
        ) as fd,
    ):
        info = bpf.map_info(fd)
    assert info.btf_id > 0
    assert (info.btf_key_type_id, info.btf_value_type_id) == (key, value)
    _assert_nothing_left(flowmap_loaded, ids_before, ns)


@pytest.mark.clause("MM-4.8", "SN-13.7")
@pytest.mark.usefixtures("pinned_to_test_cpu")
def test_creator_killed_during_publication_leaves_nothing(
    flowmap_loaded: str, make_netns: MakeNetns
) -> None:
    """A creator that is killed while its map is published leaves no map and no reference."""
    ns, ids_before = make_netns("fm-killed"), _map_ids()
    bpf.flowmap_type()  # cached here, so that the child opens no file

    def create() -> None:
        with netns.entered(ns):
            bpf.flowmap_create()

    creator = child_process.GatedChild(create)
    with stop_at("nf_flow_index_work", comm="kworker") as publication:
        creator.start()
        publication.wait_until_held()
        assert modules.refcount(flowmap_loaded) == 1
        os.kill(creator.pid, signal.SIGKILL)
        publication.release()
    with pytest.raises(child_process.ChildFailed):
        creator.join()
    wait_for("the map to be freed", lambda: modules.refcount(flowmap_loaded) == 0)
    _assert_nothing_left(flowmap_loaded, ids_before, ns)
    modules.unload(flowmap_loaded)
