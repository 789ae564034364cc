# SPDX-License-Identifier: GPL-2.0-only
"""``expires`` is of CLOCK_BOOTTIME, which differs from CLOCK_MONOTONIC only after a suspend.

A VM under test does not suspend, and a time namespace changes only what its processes see.  So
the test tells the kernel's timekeeping that the machine slept.
"""

import time

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import deadline_scale
from fixtures.guest.kernel import sleep_time
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, require_suite_module
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

_SLEPT = 100_000
"""Seconds; more than any timeout here."""
_LONGER = 3600
"""Seconds of the timeout that a packet gives to a flow after the sleep."""
_SECOND = 10**9
_NAME = {IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp"}


def _boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.clause("FM-3.17")
@pytest.mark.parametrize("protocol", _NAME, ids=_NAME.get)
def test_value_expiry_is_of_boottime_clock(
    router: Router, flowmap: int, open_connection: OpenConnection, protocol: int
) -> None:
    """A flow expires a timeout after CLOCK_BOOTTIME, however long the machine slept before.

    A value that was stored before the sleep keeps its time until a packet moves the flow's timeout.
    """
    require_suite_module(sleep_time.MODULE)
    timeout = f"netfilter/nf_flowtable_{_NAME[protocol]}_timeout"
    # The rounding of jiffies.
    slack = 1
    seconds = round(30 * deadline_scale())
    netns.set_sysctls(router.namespace, {timeout: seconds})
    start = _boottime()
    connections = [open_connection(protocol, v, server_port=7000 + v) for v in (4, 6)]
    read, unread = [conn.wait_offloaded() for conn in connections]
    shown = [bpf.lookup(flowmap, key).expires for key in read.keys]
    for expires in shown:
        assert start < expires <= _boottime() + (seconds + slack) * _SECOND

    sleep_time.inject(_SLEPT)
    monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    awake = _boottime()
    assert awake - monotonic >= _SLEPT * _SECOND
    for key in unread.keys:
        expires = bpf.lookup(flowmap, key).expires
        assert awake < expires <= _boottime() + (seconds + slack) * _SECOND
    assert [bpf.lookup(flowmap, key).expires for key in read.keys] == shown

    netns.set_sysctls(router.namespace, {timeout: _LONGER})
    for conn, flow in zip(connections, (read, unread), strict=True):
        conn.exchange()
        for key in flow.keys:
            expires = bpf.lookup(flowmap, key).expires
            assert expires > awake + (_LONGER - slack) * _SECOND
            assert expires <= _boottime() + (_LONGER + slack) * _SECOND
