# SPDX-License-Identifier: GPL-2.0-only
"""Interleavings of netns exit with the use and the free of a flow map."""

import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import hold
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import Flowmap, Namespaces
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import UDP_PROTOCOL
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


@pytest.mark.clause("SN-8", "FM-2", "RT-1")
@pytest.mark.parametrize("close_fd", [True, False], ids=["fd-closed", "fd-open"])
@pytest.mark.parametrize(
    "stop_function", ["nf_flow_snoop_fini_net", "nf_conntrack_cleanup_net_list", "dec_ucount"]
)
def test_map_between_the_exit_and_the_free_of_its_namespace(
    flowmap_module: str, make_flowmap: Flowmap, stop_function: str, close_fd: bool
) -> None:
    """A map whose netns exits misses every flow and can be closed at each step of the exit.

    The exit is held before the snoop table is unpublished, after that, and before the netns free.
    """
    with ExitStack() as own:
        router = client_router_server.build(Plan(name="exit"), own)
        conn = connections.connect(router, UDP_PROTOCOL, 4, own)
        flow = conn.offloaded()
        fd = make_flowmap(router.namespace)
        assert interleavings.found(fd, flow.keys) == [0, 1]
        connections.close_quietly(conn.client, conn.server)

        with hold(stop_function, comm="kworker") as netns_exit:
            netns.remove(router.namespace)
            netns_exit.reached()
            if stop_function != "nf_flow_snoop_fini_net":
                assert (interleavings.found(fd, flow.keys), bpf.entries(fd)) == ([None, None], 0)
            if close_fd:
                os.close(fd)
                modules.await_unreferenced(flowmap_module)
            netns_exit.release()
        if not close_fd:
            wait_for("the map to be empty", lambda: bpf.entries(fd) == 0)
            assert (interleavings.found(fd, flow.keys), list(bpf.keys(fd))) == ([None, None], [])


def _remove_netns(namespace: str) -> None:
    """Remove a netns; return when its exit is almost complete."""
    with hold("dec_ucount", comm="kworker") as netns_exit:
        netns.remove(namespace)
        netns_exit.reached()
        netns_exit.release()


@pytest.mark.clause("SN-8", "FM-2", "RT-1")
def test_map_goes_after_the_memory_of_its_namespace(
    flowmap_module: str, make_flowmap: Flowmap, namespace: Namespaces
) -> None:
    """A map whose netns has been freed can be closed."""
    ns, next_ns = namespace("fm-left"), namespace("fm-next")
    fd = make_flowmap(ns)
    _remove_netns(ns)
    # A netns is freed during the exit of the next one (net_complete_free()).
    _remove_netns(next_ns)
    os.close(fd)
    modules.await_unreferenced(flowmap_module)


@pytest.mark.clause("SN-8", "FM-2", "RT-1")
def test_exit_of_a_namespace_waits_for_a_map_that_is_being_freed(
    flowmap_module: str, make_flowmap: Flowmap
) -> None:
    """Netns exit waits for a map that is being freed."""
    with ExitStack() as own:
        router = client_router_server.build(Plan(name="exit"), own)
        fd = make_flowmap(router.namespace)
        with (
            hold("nf_flow_snoop_unpublish", comm="kworker") as map_free,
            hold("nf_flow_snoop_fini_net", comm="kworker") as exit_start,
            hold("nf_conntrack_cleanup_net_list", comm="kworker") as exit_next_step,
        ):
            os.close(fd)
            map_free.reached()
            netns.remove(router.namespace)
            exit_start.reached()
            exit_start.release()
            # The exit walks the list of snoop tables, from which the free removes one.
            interleavings.in_vain("the exit to go on", exit_next_step.somebody_came)
            map_free.release()
            exit_next_step.reached()
            exit_next_step.release()
    modules.await_unreferenced(flowmap_module)
