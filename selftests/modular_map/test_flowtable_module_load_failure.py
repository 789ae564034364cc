# SPDX-License-Identifier: GPL-2.0-only
"""Loads of nf_flow_table that fail at some step of its init leave nothing; a later one succeeds."""

import errno
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.kernel import function_override, modules
from fixtures.guest.pytest_plugin.plugin_api import (
    MakeFlowmap,
    MakeNetns,
    require_suite_module,
)

_SLABS = Path("/sys/kernel/slab")
_LATER = (
    modules.FLOWTABLE_INET_MODULE,
    modules.NFT_FLOW_OFFLOAD_MODULE,
    modules.FLOWMAP_MODULE,
)
STEPS = {
    # The work queue of the views, which has no CPU of its own.
    "work-queue": "apply_workqueue_attrs_locked",
    "namespaces": "register_pernet_subsys",
    "kfunc": "register_btf_kfunc_id_set",
}
"""A function of the kernel, by step of the init, that fails."""


def _unload_with_holders(name: str) -> None:
    for holder in modules.holders(name):
        _unload_with_holders(holder)
    modules.wait_until_unreferenced(name)
    modules.unload(name)


def _slab_caches() -> set[str]:
    """Return the names of slab caches; those of merged caches are links to ids."""
    if not _SLABS.is_dir():
        pytest.skip("the kernel does not list its slab caches (CONFIG_SLUB_DEBUG)")
    return {path.name for path in _SLABS.iterdir() if not path.name.startswith(":")}


@pytest.mark.clause("MM-6.1", "MM-6.3", "RT-3.1")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("flowtable_modules")
def test_failed_load_of_flowtable_module_leaves_no_cache(
    make_netns: MakeNetns, make_flowmap: MakeFlowmap, cleanup: ExitStack, step: str
) -> None:
    """The load is ENOMEM, as often as it is tried; no slab cache is left, and no map is created.

    Without the failure the modules load, and a flow map can be created.
    """
    require_suite_module(function_override.MODULE)
    ns = make_netns("fm-load")
    path = modules.module_path(modules.FLOWTABLE_MODULE)
    for name in _LATER:
        cleanup.callback(modules.modprobe, name)
    _unload_with_holders(modules.FLOWTABLE_MODULE)
    before = _slab_caches()
    with function_override.fail_function(STEPS[step]):
        for _ in range(2):
            with expect_errno(errno.ENOMEM):
                modules.load_file(path)
            assert not modules.loaded(modules.FLOWTABLE_MODULE)
            assert _slab_caches() == before
    with modules.autoload_disabled(), expect_errno(errno.EINVAL):
        bpf.flowmap_create()
    for name in _LATER:
        modules.modprobe(name)
    assert list(bpf.iterate_keys(make_flowmap(ns))) == []
