# SPDX-License-Identifier: GPL-2.0-only
"""How programs find out whether a kernel has flow maps: the steps of libbpf's probe."""

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpf_attr import F_RDONLY_PROG
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules

_PROBED_ENTRIES = uapi.keys_for_flows(1)


def _probe() -> int:
    """Return what libbpf_probe_bpf_map_type() of the series does: 1 if a map could be created.

    Source: probe_map_create() in tools/lib/bpf/libbpf_probes.c.
    """
    error = errno_of(lambda: bpf.flowmap_create(_PROBED_ENTRIES, F_RDONLY_PROG))
    return int(error == 0)


def _probe_without_capabilities() -> int:
    child_process.drop_capabilities_except()
    return _probe()


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.2", "MM-3.3")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_probe_is_0_absent_1_loadable_0_not_allowed() -> None:
    """The probe says 0 without a module, 1 if it can be loaded, and 0 to an unprivileged caller.

    A probe that says 0 loads nothing, and one that says 1 leaves no reference to the module.
    """
    with modules.autoload_disabled():
        assert _probe() == 0
    assert child_process.run_in_child(_probe_without_capabilities) == 0
    assert not modules.loaded(modules.FLOWMAP_MODULE)

    assert _probe() == 1
    assert modules.loaded(modules.FLOWMAP_MODULE)
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    # Also with the module loaded, the privileges decide first.
    assert child_process.run_in_child(_probe_without_capabilities) == 0
    assert modules.refcount(modules.FLOWMAP_MODULE) == 0
    modules.unload(modules.FLOWMAP_MODULE)
