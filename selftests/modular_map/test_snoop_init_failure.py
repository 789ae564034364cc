# SPDX-License-Identifier: GPL-2.0-only
"""A map or a flow table whose snoop table cannot be made: refused, and nothing of it stays.

Its hash table is allocated even where there is no memory (rhashtable_init() in lib/rhashtable.c
falls back to __GFP_NOFAIL), so that fault injection does not get here: a function itself is made
to fail, that which makes the hash table, or that which makes the snoop table.  What is then not
freed, kmemleak finds (profile leak).
"""

import errno
import os

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.kernel import function_override, modules
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.fixtures import Namespaces, require_own_module

MAKING = pytest.mark.parametrize("making", ["nf_flow_snoop_init", "__rhltable_init_noprof"])
TIMES = 8
"""An old pointer that lies about somewhere hides one from kmemleak, not all."""


@pytest.mark.clause("MM-5", "RT-3")
@MAKING
def test_map_whose_snoop_table_cannot_be_made_is_refused(flowmap_module: str, making: str) -> None:
    require_own_module(function_override.MODULE)
    with function_override.failing(making):
        for _ in range(TIMES):
            with refused(errno.ENOMEM):
                bpf.flowmap_create()

    os.close(bpf.flowmap_create())
    modules.await_unreferenced(flowmap_module)
    modules.unload(flowmap_module)


@pytest.mark.clause("SN-8", "RT-3")
@MAKING
@pytest.mark.usefixtures("flowtable_modules")
def test_flow_table_whose_snoop_table_cannot_be_made_is_refused(
    namespace: Namespaces, making: str
) -> None:
    require_own_module(function_override.MODULE)
    inside = namespace("fm-fail")
    with function_override.failing(making):
        for _ in range(TIMES):
            with refused(errno.ENOMEM):
                flowtable.create_snoop("spy", "all", inside)

    assert flowtable.flowtables(inside) == []
    flowtable.create_snoop("spy", "all", inside)
    assert [each.name for each in flowtable.flowtables(inside)] == ["all"]
