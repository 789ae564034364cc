# SPDX-License-Identifier: GPL-2.0-only
"""``expires`` is of CLOCK_BOOTTIME, which differs from CLOCK_MONOTONIC only after a suspend.

A VM under test does not suspend, and a time namespace changes only what its processes see.  So
the test replaces the kernel's reading of the clock by a constant.
"""

import errno
import time

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import function_override
from fixtures.guest.pytest_plugin.plugin_api import (
    MakeFlowmap,
    OpenConnection,
    require_suite_module,
)
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

_BOOTTIME = "ktime_get_boot_fast_ns"
"""The reading of CLOCK_BOOTTIME that is safe in each context in which a program may run."""
_CONSTANT = -errno.ENOMEM
"""Nanoseconds that the function returns while it is replaced."""
_TIMEOUTS = {IPPROTO_TCP: 30, IPPROTO_UDP: 30}
_SECOND = 10**9


@pytest.mark.clause("FM-3.17")
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_value_expiry_is_of_boottime_clock(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    protocol: int,
) -> None:
    """Expiry follows the kernel's CLOCK_BOOTTIME, whatever the other clocks say.

    A flow whose value is read for the first time while the clock is replaced expires a timeout
    after the constant; another one, which was read before, keeps its time.
    """
    require_suite_module(function_override.MODULE)
    early = open_connection(protocol, 4, server_port=7001).wait_offloaded()
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    seconds = _TIMEOUTS[protocol]
    for key in early.keys:
        assert 0 < bpf.lookup(flowmap, key).expires - before < (seconds + 1) * _SECOND
    late = open_connection(protocol, 6, server_port=7002).wait_offloaded()
    with function_override.fail_function(_BOOTTIME) as calls:
        for key in late.keys:
            expires = bpf.lookup(flowmap, key).expires
            assert 0 < expires - _CONSTANT <= seconds * _SECOND
        assert calls() >= 1
        shown = [bpf.lookup(flowmap, key).expires for key in early.keys]
        # The same as in a map that is created now.
        again = make_flowmap(router.namespace)
        assert [bpf.lookup(again, key).expires for key in early.keys] == shown
    assert all(expires > before for expires in shown)
