# SPDX-License-Identifier: GPL-2.0-only
"""A flow whose timeout has passed is served, and found, until garbage collection has seen it.

The source table does not look at the timeout when it forwards a packet: it forwards and prolongs.
Garbage collection is held at its next flow, so that the state lasts.
"""

import time
from collections.abc import Callable

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu", "require_preempt_rcu")

_GC = "nf_flow_offload_work_gc"
_TIMEOUTS = ("netfilter/nf_flowtable_tcp_timeout", "netfilter/nf_flowtable_udp_timeout")


def _expires(fd: int, key: uapi.Key) -> int:
    """Return when the flow expires, in nanoseconds from now."""
    return int(bpf.lookup(fd, key).expires) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.clause("SN-6.1", "SN-6.3", "FM-10.1", "FM-10.2", "FM-3.17", "FM-6.10", "RT-1.1")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("rescue", ["program", "packet", "nothing"], ids="then-{}".format)
def test_flow_past_its_timeout_is_found_until_gc(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    rescue: str,
    version: int,
) -> None:
    """While garbage collection is late, every reader finds the flow in both directions.

    A program's lookup then prolongs it as a packet would, and it lives on.  Reading from user space
    and lookups in a passive map do not, and garbage collection ends it.
    """
    ns = private_router.namespace
    passive = make_flowmap(ns, map_extra=uapi.PASSIVE)
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_xdp"), "by_xdp")
    observer = LookupProbe(load_bpf("lookup_probe", passive, "by_tc"), "by_tc")
    conns = [open_private_connection(protocol, version) for protocol in (IPPROTO_UDP, IPPROTO_TCP)]
    flows = [conn.wait_offloaded() for conn in conns]
    keys = [key for flow in flows for key in flow.keys]
    rescues: dict[str, Callable[[], object]] = {
        "program": lambda: [probe.lookup(key) for key in keys],
        "packet": lambda: list(map(Connection.exchange, conns)),
        "nothing": lambda: [observer.lookup(key) for key in keys],
    }
    with stop_at(_GC, comm="kworker", timeout=15) as gc:
        gc.wait_until_held()
        # A shorter timeout moves the one of a flow with its next packet.
        netns.set_sysctls(ns, dict.fromkeys(_TIMEOUTS, 1))
        for conn in conns:
            conn.exchange()
        wait_for("the timeouts to pass", lambda: all(_expires(passive, key) < 0 for key in keys))

        assert [bpf.lookup(private_flowmap, key).dir for key in keys] == [0, 1] * len(flows)
        assert [value and value.dir for value in map(observer.lookup, keys)] == [0, 1] * len(flows)
        expected = sorted(map(bytes, keys))
        for fd in (private_flowmap, passive):
            assert sorted(map(bytes, bpf.iterate_keys(fd))) == expected
            pairs, _, _ = bpf.lookup_batch(fd, 2 * len(keys))
            assert sorted(bytes(key) for key, _ in pairs) == expected
        assert all(_expires(passive, key) < 0 for key in keys)

        netns.set_sysctls(ns, dict.fromkeys(_TIMEOUTS, 3600))
        rescues[rescue]()
        for key in keys:
            assert (_expires(passive, key) > 0) == (rescue != "nothing")
        gc.release()
    if rescue == "nothing":
        wait_for("the flows to end", lambda: bpf.flowmap_entry_count(passive) == 0)
        assert [bpf.lookup_or_none(passive, key) for key in keys] == [None] * len(keys)
        return
    # A later run of garbage collection has seen the flows once it is held again.
    with stop_at(_GC, comm="kworker", timeout=15) as gc:
        gc.wait_until_held()
        gc.release()
    assert [bpf.lookup(private_flowmap, key).dir for key in keys] == [0, 1] * len(flows)
