# SPDX-License-Identifier: GPL-2.0-only
"""Creation of a flow map or snoop table whose snoop table initialisation fails.

rhashtable_init() in lib/rhashtable.c falls back to __GFP_NOFAIL, so fault injection cannot make it
fail.  The suite's module fails a whole function instead: the one that initialises the hash table,
or the one that initialises the snoop table.  kmemleak (profile leak) reports what is not freed.
"""

import errno
import os

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.kernel import function_override, modules
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import Namespaces, require_own_module

failing_function_cases = pytest.mark.parametrize(
    "failing_function", ["nf_flow_snoop_init", "__rhltable_init_noprof"]
)
ATTEMPTS = 8
"""A stale pointer in memory can hide one leaked object from kmemleak, not all eight."""


@pytest.mark.clause("MM-5", "RT-3")
@failing_function_cases
def test_map_whose_snoop_table_cannot_be_made_is_refused(
    flowmap_module: str, failing_function: str
) -> None:
    """Flow map creation fails with ENOMEM when its snoop table cannot be initialised."""
    require_own_module(function_override.MODULE)
    with function_override.failing(failing_function):
        for _ in range(ATTEMPTS):
            with refused(errno.ENOMEM):
                bpf.flowmap_create()

    os.close(bpf.flowmap_create())
    modules.await_unreferenced(flowmap_module)
    modules.unload(flowmap_module)


@pytest.mark.clause("SN-8", "RT-3")
@failing_function_cases
@pytest.mark.usefixtures("flowtable_modules")
def test_flow_table_whose_snoop_table_cannot_be_made_is_refused(
    namespace: Namespaces, failing_function: str
) -> None:
    """Snoop flowtable creation fails with ENOMEM when the table cannot be initialised."""
    require_own_module(function_override.MODULE)
    ns = namespace("fm-fail")
    with function_override.failing(failing_function):
        for _ in range(ATTEMPTS):
            with refused(errno.ENOMEM):
                flowtable.create_snoop("spy", "all", ns)

    assert flowtable.flowtables(ns) == []
    flowtable.create_snoop("spy", "all", ns)
    assert [table.name for table in flowtable.flowtables(ns)] == ["all"]
