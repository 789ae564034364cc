# SPDX-License-Identifier: GPL-2.0-only
"""Creation of a flow map or snoop table whose view of the netns cannot be registered.

The first view of a netns allocates the index with its hash table.  rhashtable_init() in
lib/rhashtable.c falls back to __GFP_NOFAIL, so fault injection cannot make it fail.  The suite's
module fails a whole function instead: the one that initialises the hash table, or the one that
registers the view.  kmemleak (profile leak) reports what is not freed.
"""

import errno
import os

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.kernel import function_override, modules
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, require_suite_module

failing_function_cases = pytest.mark.parametrize(
    "failing_function", ["nf_flow_snoop_register", "__rhashtable_init_noprof"]
)
ATTEMPTS = 8
"""A stale pointer in memory can hide one leaked object from kmemleak, not all eight."""


@pytest.mark.clause("MM-5.2", "RT-3.1")
@failing_function_cases
def test_map_create_with_view_registration_failing_is_enomem(
    flowmap_loaded: str, failing_function: str
) -> None:
    """Flow map creation fails with ENOMEM when its view cannot be registered."""
    require_suite_module(function_override.MODULE)
    with function_override.fail_function(failing_function):
        for _ in range(ATTEMPTS):
            with expect_errno(errno.ENOMEM):
                bpf.flowmap_create()

    os.close(bpf.flowmap_create())
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)


@pytest.mark.clause("SN-8.3", "RT-3.1")
@failing_function_cases
@pytest.mark.usefixtures("flowtable_modules")
def test_flowtable_create_with_view_registration_failing_is_enomem(
    make_netns: MakeNetns, failing_function: str
) -> None:
    """Snoop flowtable creation fails with ENOMEM when its view cannot be registered."""
    require_suite_module(function_override.MODULE)
    ns = make_netns("fm-fail")
    # Create the nft table first, which has a hash table of its own.
    flowtable.commit_batch([flowtable.new_table(flowtable.INET, "spy")], ns)
    with function_override.fail_function(failing_function):
        for _ in range(ATTEMPTS):
            with expect_errno(errno.ENOMEM):
                flowtable.create_snoop_table("spy", "all", ns)

    assert flowtable.list_flowtables(ns) == []
    flowtable.create_snoop_table("spy", "all", ns)
    assert [table.name for table in flowtable.list_flowtables(ns)] == ["all"]
