# SPDX-License-Identifier: GPL-2.0-only
"""A security module denies the creation of a flow map."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

DENIED = 0
"""Counter of selftests/bpf/lsm_deny.bpf.c."""
_TRIES = 5


@pytest.mark.clause("MM-5.5")
@pytest.mark.usefixtures("flowmap_unloaded")
@pytest.mark.parametrize("module_is_loaded", [False, True], ids=["absent", "loaded"])
def test_map_create_denied_by_lsm_leaves_no_module_ref(
    make_flowmap: MakeFlowmap, cleanup: ExitStack, module_is_loaded: bool
) -> None:
    """Each denied creation is EPERM and keeps nothing; without the LSM the next one succeeds."""
    if module_is_loaded:
        modules.modprobe(modules.FLOWMAP_MODULE)
    lsm = BpfObject("lsm_deny", {})
    cleanup.callback(lsm.close)
    with ExitStack() as attached:
        lsm.attach("deny_flowmap", attached)
        for _ in range(_TRIES):
            with pytest.raises(PermissionError):
                make_flowmap()
        assert lsm.counter(DENIED) == _TRIES
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    modules.unload(modules.FLOWMAP_MODULE)

    assert make_flowmap() >= 0
    assert modules.refcount(modules.FLOWMAP_MODULE) == 1
