# SPDX-License-Identifier: GPL-2.0-only
"""References that pin a map type's module, and unloading once they are released."""

import errno
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns
from selftests.modular_map.map_holders import (
    MAP_HOLDERS,
    Holder,
    inherited_fd,
    inner_map_template,
    module_refs_of,
    pinned_link,
)

_TAINTED = Path("/proc/sys/kernel/tainted")


def _refcount_is(count: int) -> bool:
    return modules.refcount(modules.FLOWMAP_MODULE) == count


def _map_ids() -> list[int]:
    return bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)


def _create_and_free_control_map(namespace: str) -> None:
    """Create a map and wait until it is freed, which takes as long as any other pending free."""
    before = modules.refcount(modules.FLOWMAP_MODULE)
    with bpf.open_flowmap(namespace):
        assert _refcount_is(before + 1)
    wait_for("the control map to be freed", partial(_refcount_is, before))


@pytest.mark.clause("MM-4.1", "MM-4.7", "MM-4.8", "V0-5")
def test_unload_refused_while_map_fd_is_open(flowmap_loaded: str, make_netns: MakeNetns) -> None:
    """Unload fails with EWOULDBLOCK while a map fd is open, and succeeds after it is closed."""
    with netns.entered(make_netns("fm-held")):
        fd = bpf.flowmap_create()
    assert modules.refcount(flowmap_loaded) == 1

    with expect_errno(errno.EWOULDBLOCK):
        modules.unload(flowmap_loaded)

    os.close(fd)
    wait_for("the module to be unloadable", lambda: modules.try_unload(modules.FLOWMAP_MODULE))
    assert not modules.loaded(flowmap_loaded)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-4.1", "MM-4.2", "MM-4.3", "MM-4.4", "MM-4.5", "MM-4.7", "MM-4.8")
@pytest.mark.parametrize("hold", MAP_HOLDERS, ids=lambda hold: hold.__name__)
def test_unload_refused_while_map_is_referenced(
    hold: Holder, flowmap_loaded: str, make_netns: MakeNetns, bpffs: Path
) -> None:
    """Unload is refused while the map is referenced after its first fd was closed.

    The map has one module reference, whatever holds it, and the reference is the map's: another
    map comes and goes meanwhile, so no free is pending when the references are counted.
    """
    ns = make_netns("fm-held")
    with netns.entered(ns):
        fd = bpf.flowmap_create()
    map_id = bpf.map_info(fd).id
    release = hold(fd, bpffs, ns)
    references = 1 + module_refs_of(hold)
    assert _refcount_is(references)
    os.close(fd)
    _create_and_free_control_map(ns)
    assert map_id in _map_ids()
    assert _refcount_is(references)
    with expect_errno(errno.EWOULDBLOCK):
        modules.unload(flowmap_loaded)

    release()
    modules.wait_until_unreferenced(flowmap_loaded)
    assert map_id not in _map_ids()
    modules.unload(flowmap_loaded)


@pytest.mark.clause("MM-4.5")
def test_map_of_maps_holds_module_ref_for_its_template(
    flowmap_loaded: str, make_netns: MakeNetns, bpffs: Path
) -> None:
    """A map of maps has a module reference of its own for its template, which no free takes away.

    The template copies the map's operations, and outlives the map.
    """
    ns = make_netns("fm-held")
    with netns.entered(ns):
        fd = bpf.flowmap_create()
    releases = [inner_map_template(fd, bpffs, ns) for _ in range(2)]
    assert _refcount_is(3)
    os.close(fd)
    for remaining in (2, 1):
        wait_for(f"{remaining} reference(s) to remain", partial(_refcount_is, remaining))
        _create_and_free_control_map(ns)
        assert _refcount_is(remaining)
        assert not modules.try_unload(modules.FLOWMAP_MODULE)
        releases.pop()()
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)


@pytest.mark.clause("MM-4.1", "MM-4.2", "MM-4.3", "MM-4.4", "MM-4.5", "MM-4.7", "MM-4.8")
@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest-first", "newest-first"])
def test_map_with_many_holders_pins_module_until_last_is_released(
    flowmap_loaded: str, make_netns: MakeNetns, bpffs: Path, newest_first: bool
) -> None:
    """With every kind of holder at once, the map lives until the last of them is released."""
    ns = make_netns("fm-held")
    with netns.entered(ns):
        fd = bpf.flowmap_create()
    map_id = bpf.map_info(fd).id
    # A child would inherit the descriptors of the other holders, and a device has one XDP link.
    holders = [hold for hold in MAP_HOLDERS if hold not in (pinned_link, inherited_fd)]
    releases = [(hold, hold(fd, bpffs, ns)) for hold in holders]
    os.close(fd)
    references = 1 + sum(module_refs_of(hold) for hold in holders)
    if newest_first:
        releases.reverse()
    for hold, release in releases:
        where = f"before the release of {hold.__name__}"
        assert map_id in _map_ids(), where
        # The outer maps before this one are freed some time later.
        wait_for(f"{references} reference(s) {where}", partial(_refcount_is, references))
        assert not modules.try_unload(modules.FLOWMAP_MODULE), where
        release()
        references -= module_refs_of(hold)
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)


@pytest.mark.clause("MM-4.1", "MM-4.8")
def test_each_map_holds_one_module_ref(
    flowmap_loaded: str, make_netns: MakeNetns, make_flowmap: MakeFlowmap
) -> None:
    """Each map holds one module reference until it is freed."""
    ns = make_netns("fm-held")
    fds = [make_flowmap(ns) for _ in range(5)]
    assert modules.refcount(flowmap_loaded) == 5
    for remaining, fd in zip(reversed(range(5)), fds, strict=True):
        os.close(fd)
        wait_for(
            f"{remaining} reference(s) to remain",
            partial(_refcount_is, remaining),
        )
    assert modules.try_unload(modules.FLOWMAP_MODULE)


@pytest.mark.clause("MM-1.1", "MM-6.1", "MM-6.2", "V0-5")
def test_module_reload_permits_map_create_again(flowmap_loaded: str, make_netns: MakeNetns) -> None:
    """After each of ten unloads map creation is EINVAL, and a reload permits it again."""
    ns = make_netns("fm-again")
    for _ in range(10):
        with bpf.open_flowmap(ns) as fd:
            assert bpf.map_info(fd).type == bpf.flowmap_type()
        wait_for("the module to be unloadable", lambda: modules.try_unload(modules.FLOWMAP_MODULE))
        with modules.autoload_disabled(), expect_errno(errno.EINVAL):
            bpf.flowmap_create()
        modules.load(flowmap_loaded)


def _tainted_by_forced_unload() -> bool:
    """Return whether the kernel is tainted by a forced unload (TAINT_FORCED_RMMOD)."""
    return bool(int(_TAINTED.read_text()) & 1 << 1)


@pytest.mark.clause("MM-4.9")
def test_forced_unload_of_module_dependency_is_refused(
    flowmap_loaded: str, make_netns: MakeNetns, make_flowmap: MakeFlowmap
) -> None:
    """A module that the flow map module depends on is not unloaded, not even by force.

    A map pins the flow map module, which pins nf_flow_table.  The flow map module itself is not
    unloaded by force while a map exists: kernel/module/main.c would ignore the reference, taint the
    kernel and free code that the map still calls.
    """
    fd = make_flowmap(make_netns("fm-forced"))
    assert modules.holders(modules.FLOWTABLE_MODULE) == [flowmap_loaded]
    for force in (False, True):
        with expect_errno(errno.EWOULDBLOCK):
            modules.unload(modules.FLOWTABLE_MODULE, force=force)
    assert bpf.lookup_or_none(fd, uapi.Key(l3proto=2)) is None

    os.close(fd)
    modules.wait_until_unreferenced(flowmap_loaded)
    # Without references the force flag has no effect.
    modules.unload(flowmap_loaded, force=True)
    modules.unload(modules.FLOWTABLE_MODULE, force=True)
    assert not _tainted_by_forced_unload()


@pytest.mark.clause("MM-6.1")
def test_builtin_map_after_module_unload_works(flowmap_loaded: str, cleanup: ExitStack) -> None:
    """A hash map works after the flow map module is unloaded."""
    fd = cleanup.enter_context(bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8)))
    modules.unload(flowmap_loaded)
    bpf.update_raw(fd, b"abcd", b"wxyz")
    assert bpf.lookup_raw(fd, b"abcd", 4) == b"wxyz"
