# SPDX-License-Identifier: GPL-2.0-only
"""A map and the exit of its namespace, at every step of it."""

import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import hold
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.fixtures import Flowmap, Namespaces
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import UDP_PROTOCOL
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("near")


@pytest.mark.clause("SN-8", "FM-2", "RT-1")
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "kept"])
@pytest.mark.parametrize(
    "place", ["nf_flow_snoop_fini_net", "nf_conntrack_cleanup_net_list", "dec_ucount"]
)
def test_map_between_the_exit_and_the_free_of_its_namespace(
    flowmap_module: str, make_flowmap: Flowmap, place: str, closed: bool
) -> None:
    """Before the table is unpublished, after that, and before the namespace's memory goes."""
    with ExitStack() as own:
        router = client_router_server.build(Plan(name="exit"), own)
        talk = connections.connect(router, UDP_PROTOCOL, 4, own)
        flow = talk.offloaded()
        fd = make_flowmap(router.namespace)
        assert interleavings.found(fd, flow.keys) == [0, 1]
        connections.close_quietly(talk.client, talk.server)

        with hold(place, comm="kworker") as stop:
            netns.remove(router.namespace)
            stop.reached()
            if place != "nf_flow_snoop_fini_net":
                assert (interleavings.found(fd, flow.keys), bpf.entries(fd)) == ([None, None], 0)
            if closed:
                os.close(fd)
                modules.await_unreferenced(flowmap_module)
            stop.release()
        if not closed:
            wait_for("the map to be empty", lambda: bpf.entries(fd) == 0)
            assert (interleavings.found(fd, flow.keys), list(bpf.keys(fd))) == ([None, None], [])


def _leave(namespace: str) -> None:
    """Remove a namespace, and return when its exit is all but over."""
    with hold("dec_ucount", comm="kworker") as stop:
        netns.remove(namespace)
        stop.reached()
        stop.release()


@pytest.mark.clause("SN-8", "FM-2", "RT-1")
def test_map_goes_after_the_memory_of_its_namespace(
    flowmap_module: str, make_flowmap: Flowmap, namespace: Namespaces
) -> None:
    inside, further = namespace("fm-left"), namespace("fm-next")
    fd = make_flowmap(inside)
    _leave(inside)
    # A namespace's memory goes in the exit of the next (net_complete_free()).
    _leave(further)
    os.close(fd)
    modules.await_unreferenced(flowmap_module)


@pytest.mark.clause("SN-8", "FM-2", "RT-1")
def test_exit_of_a_namespace_waits_for_a_map_that_is_being_freed(
    flowmap_module: str, make_flowmap: Flowmap
) -> None:
    with ExitStack() as own:
        router = client_router_server.build(Plan(name="exit"), own)
        fd = make_flowmap(router.namespace)
        with (
            hold("nf_flow_snoop_unpublish", comm="kworker") as freeing,
            hold("nf_flow_snoop_fini_net", comm="kworker") as leaving,
            hold("nf_conntrack_cleanup_net_list", comm="kworker") as beyond,
        ):
            os.close(fd)
            freeing.reached()
            netns.remove(router.namespace)
            leaving.reached()
            leaving.release()
            # It walks over the list of tables, of which one is being taken off.
            interleavings.in_vain("the exit to go on", beyond.somebody_came)
            freeing.release()
            beyond.reached()
            beyond.release()
    modules.await_unreferenced(flowmap_module)
