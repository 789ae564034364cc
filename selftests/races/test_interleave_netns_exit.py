# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings of netns exit with the use and the free of a flow map."""

import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import RouterConfig
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import IPPROTO_UDP
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")


@pytest.mark.clause("FM-2.3", "SN-6.8", "SN-8.1", "RT-1.1")
@pytest.mark.parametrize("close_fd", [True, False], ids=["fd-closed", "fd-open"])
@pytest.mark.parametrize(
    "stop_function", ["nf_flow_snoop_fini_net", "nf_conntrack_cleanup_net_list", "dec_ucount"]
)
def test_map_during_netns_exit_is_empty_and_closable(
    flowmap_loaded: str, make_flowmap: MakeFlowmap, stop_function: str, close_fd: bool
) -> None:
    """A map whose netns exits misses every flow and can be closed at each step of the exit.

    The exit is held before it detaches the index, after the flow tables are freed, and before the
    netns free.
    """
    with ExitStack() as own:
        router = client_router_server.build_router(RouterConfig(netns_prefix="exit"), own)
        conn = connections.connect(router, IPPROTO_UDP, 4, own)
        flow = conn.wait_offloaded()
        fd = make_flowmap(router.namespace)
        assert interleavings.lookup_directions(fd, flow.keys) == [0, 1]
        connections.close_without_shutdown(conn.client, conn.server)

        with stop_at(stop_function, comm="kworker") as netns_exit:
            netns.remove(router.namespace)
            netns_exit.wait_until_held()
            if stop_function != "nf_flow_snoop_fini_net":
                assert (
                    interleavings.lookup_directions(fd, flow.keys),
                    bpf.flowmap_entry_count(fd),
                ) == ([None, None], 0)
            if close_fd:
                os.close(fd)
                modules.wait_until_unreferenced(flowmap_loaded)
            netns_exit.release()
        if not close_fd:
            wait_for("the map to be empty", lambda: bpf.flowmap_entry_count(fd) == 0)
            assert (interleavings.lookup_directions(fd, flow.keys), list(bpf.iterate_keys(fd))) == (
                [None, None],
                [],
            )


def _remove_netns(namespace: str) -> None:
    """Remove a netns; return when its exit is almost complete."""
    with stop_at("dec_ucount", comm="kworker") as netns_exit:
        netns.remove(namespace)
        netns_exit.wait_until_held()
        netns_exit.release()


@pytest.mark.clause("FM-2.2", "FM-2.3", "RT-1.1")
def test_map_close_after_netns_free_is_safe(
    flowmap_loaded: str, make_flowmap: MakeFlowmap, make_netns: MakeNetns
) -> None:
    """A map whose netns has been freed can be closed."""
    ns, next_ns = make_netns("fm-left"), make_netns("fm-next")
    fd = make_flowmap(ns)
    _remove_netns(ns)
    # A netns is freed during the exit of the next one (net_complete_free()).
    _remove_netns(next_ns)
    os.close(fd)
    modules.wait_until_unreferenced(flowmap_loaded)


@pytest.mark.clause("SN-8.1", "SN-12.6", "RT-1.1")
def test_netns_exit_waits_for_work_of_its_index(
    flowmap_loaded: str, make_flowmap: MakeFlowmap
) -> None:
    """Netns exit waits for a work item that removes a freed map, and that looks at the netns."""
    with ExitStack() as own:
        router = client_router_server.build_router(RouterConfig(netns_prefix="exit"), own)
        fd = make_flowmap(router.namespace)
        with (
            stop_at("nf_flow_index_work", comm="kworker") as removal,
            stop_at("nf_flow_snoop_fini_net", comm="kworker") as exit_start,
            stop_at("nf_conntrack_cleanup_net_list", comm="kworker") as exit_next_step,
        ):
            os.close(fd)
            removal.wait_until_held()
            netns.remove(router.namespace)
            exit_tid = exit_start.wait_until_held().tid
            exit_start.release()
            interleavings.assert_waits(exit_tid, "nf_flow_snoop_fini_net", exit_next_step.hit)
            removal.release()
            exit_next_step.wait_until_held()
            exit_next_step.release()
    modules.wait_until_unreferenced(flowmap_loaded)
