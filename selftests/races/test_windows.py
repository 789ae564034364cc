# SPDX-License-Identifier: GPL-2.0-only
"""The known windows of the series, each with the one interleaving that matters forced.

A task is held at a function inside the window (fixtures/guest/stop_points.py) while the test
does what must not hurt there.  Nothing is left to luck, and each test says where it stopped.
"""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest import (
    bpf_programs,
    conntrack,
    flowtable,
    modules,
    netns,
    process,
    topology,
    traffic,
)
from fixtures.guest import bpf_syscall as bpf
from fixtures.guest.plugin import Connect, Flowmap, Load, Namespaces
from fixtures.guest.refusal import errno_of, refused
from fixtures.guest.stop_points import FAR, NEAR, hash_tables_wait, hold
from fixtures.guest.topology import Plan, Router
from fixtures.guest.traffic import UDP_PROTOCOL, Connection, frame
from fixtures.guest.uapi import Value
from fixtures.guest.wait import wait_for
from selftests.races import windows

pytestmark = pytest.mark.usefixtures("near")

XDP_PASS = 2


def _gone(module: str) -> bool:
    return not (modules.loaded(module) or modules.going(module))


@pytest.mark.clause("MM-7", "MM-3", "RT-1")
def test_module_goes_between_the_lookup_of_its_type_and_the_reference(
    flowmap_module: str,
) -> None:
    bpf.flowmap_type()  # read once, so that the child opens no file
    creator = process.Waiting(lambda: errno_of(bpf.flowmap_create))
    unloader = process.Waiting(lambda: modules.unload(flowmap_module))
    with modules.autoload_disabled(), hold("try_module_get", task=creator.pid) as stop:
        creator.begin()
        stop.reached()
        unloader.begin()
        wait_for("the module to be on its way out", lambda: modules.going(flowmap_module))
        # What is looked at in the creator's hands has to stay: in vain does one wait for its end.
        windows.in_vain("the module to be gone", lambda: _gone(flowmap_module))
        stop.release()
        assert creator.join() == errno.EINVAL
    unloader.join()
    assert not modules.loaded(flowmap_module)


@pytest.mark.clause("MM-4", "MM-7", "RT-1")
@pytest.mark.parametrize("place", ["bpf_map_free_deferred", "flowmap_free", "module_put"])
def test_unload_between_the_last_reference_to_a_map_and_its_free(
    flowmap_module: str, place: str
) -> None:
    fd = bpf.flowmap_create()
    with hold(place, comm="kworker") as stop:
        os.close(fd)
        stop.reached()
        with refused(errno.EWOULDBLOCK):
            modules.unload(flowmap_module)
        stop.release()
    modules.await_unreferenced(flowmap_module)
    modules.unload(flowmap_module)


# Where a flow is added nothing may sleep: it is held on its CPU, in a softirq of whoever is
# there, and grace periods wait for it.


@pytest.mark.clause("SN-6", "RT-1")
def test_connection_ends_between_the_addition_of_its_flow_and_the_mirror(
    own_flowmap: int, talk: Connection
) -> None:
    flow = windows.known(talk, own_flowmap)
    sender = windows.adder(talk, own_flowmap)
    with hold("__nf_flow_snoop_add", cpu=FAR) as stop:
        sender.begin()
        stop.reached()
        _require_offloaded(talk)
        assert windows.found(own_flowmap, flow.keys) == [None, None]
        conntrack.delete(talk.tuple, talk.router.namespace)
        stop.release()
    sender.join()
    assert windows.found(own_flowmap, flow.keys) == [None, None]
    wait_for("the dead flow to go", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("SN-6", "SN-8", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_deleted_between_its_addition_and_the_mirror(
    own_flowmap: int, talk: Connection, namespace: Namespaces
) -> None:
    """Garbage collection may have come and gone: there is nobody left who would remove a copy."""
    flow = windows.known(talk, own_flowmap)
    sender = windows.adder(talk, own_flowmap)
    windows.collect_garbage_here(namespace("fm-gc"))
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("__nf_flow_snoop_add", cpu=FAR) as stop,
    ):
        sender.begin()
        stop.reached(busy=True)
        conntrack.delete(talk.tuple, talk.router.namespace)
        deletion.reached(busy=True)
        deletion.release()
        stop.release()
    sender.join()
    assert (windows.found(own_flowmap, flow.keys), bpf.entries(own_flowmap)) == (
        [None, None],
        0,
    )


def _free(fd: int, module: str, held: ExitStack) -> None:
    """Close a map, and wait until it is freed or waits for nothing but who is held."""
    if not hash_tables_wait():
        os.close(fd)
        modules.await_unreferenced(module)
        return
    # The end of a stop point waits for a grace period, too.
    waits = held.enter_context(hold("synchronize_rcu", comm="kworker"))
    os.close(fd)
    waits.reached()
    waits.release()


@pytest.mark.clause("SN-8", "MM-7", "RT-1")
def test_map_goes_between_the_addition_of_a_flow_and_the_mirror(
    own_flowmap: int, flowmap_module: str, talk: Connection
) -> None:
    flow = windows.known(talk, own_flowmap)
    sender = windows.adder(talk, own_flowmap)
    with ExitStack() as held:
        stop = held.enter_context(hold("__nf_flow_snoop_add", cpu=FAR))
        sender.begin()
        stop.reached()
        _free(own_flowmap, flowmap_module, held)
        stop.release()
    sender.join()
    modules.await_unreferenced(flowmap_module)
    with bpf.flowmap(talk.router.namespace) as fd:
        assert (windows.found(fd, flow.keys), bpf.entries(fd)) == ([0, 1], 1)


@pytest.mark.clause("SN-8", "SN-9", "RT-1")
def test_snoop_table_goes_between_the_addition_of_a_flow_and_the_mirror(
    own_flowmap: int, talk: Connection
) -> None:
    inside = talk.router.namespace
    flow = windows.known(talk, own_flowmap)
    flowtable.create_snoop("spy", "all", inside)
    sender = windows.adder(talk, own_flowmap)
    dropper = process.Waiting(lambda: flowtable.drop_table("spy", inside))
    with (
        # Closing its socket waits for the destruction, which waits for a grace period.
        hold("nft_rcv_nl_event", task=dropper.pid) as committed,
        hold("__nf_flow_snoop_add", cpu=FAR) as stop,
    ):
        sender.begin()
        stop.reached()
        dropper.begin()
        committed.reached()
        committed.release()
        stop.release()
    sender.join()
    dropper.join()
    assert "spy" not in {table.table for table in flowtable.flowtables(inside)}
    assert (windows.found(own_flowmap, flow.keys), bpf.entries(own_flowmap)) == ([0, 1], 1)


def _require_offloaded(talk: Connection) -> None:
    entry = talk.entry()
    assert entry is not None
    assert entry.offloaded


@pytest.mark.clause("FM-9", "SN-8", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_in_no_copy_when_its_memory_is_let_go(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """Who looks it up later than that, nobody waits for."""
    talk.offloaded()
    assert bpf.entries(own_flowmap) == 1
    with hold("flow_offload_free") as stop:
        conntrack.flush(own_router.namespace)
        stop.reached()
        assert bpf.entries(own_flowmap) == 0
        stop.release()


@pytest.mark.clause("FM-6", "RT-1")
def test_flow_leaves_the_order_when_the_walk_that_looks_at_it_has_gone_on(
    own_router: Router, own_flowmap: int, talk: Connection, namespace: Namespaces
) -> None:
    """Who removes it spins until then, on the CPU of the test."""
    talk.offloaded()
    walker = process.Waiting(lambda: list(bpf.keys(own_flowmap)), FAR)
    windows.collect_garbage_here(namespace("fm-gc"))
    # A walk asks whether the route of what it has found is still good.
    with hold("ipv4_dst_check", task=walker.pid, seconds=2.0, lapses=True) as stop:
        walker.begin()
        stop.reached(busy=True)
        conntrack.delete(talk.tuple, own_router.namespace)
        wait_for("the flow to be removed", lambda: bpf.entries(own_flowmap) == 0, 30.0)
        assert stop.lapsed()
    walker.join()


@pytest.mark.clause("SN-6", "SN-10", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_comes_back_between_teardown_and_removal(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    flow = talk.offloaded()
    with hold("__nf_flow_snoop_del") as stop:
        conntrack.flush(own_router.namespace)
        stop.reached()
        # Out of its own table, and still in the map's.
        assert bpf.entries(own_flowmap) == 1
        assert windows.found(own_flowmap, flow.keys) == [None, None]
        assert list(bpf.keys(own_flowmap)) == []

        talk.offloaded()
        assert bpf.entries(own_flowmap) == 2
        assert windows.found(own_flowmap, flow.keys) == [0, 1]
        assert len(list(bpf.keys(own_flowmap))) == 2
        stop.release()
    wait_for("the old entry to go", lambda: bpf.entries(own_flowmap) == 1)
    assert windows.found(own_flowmap, flow.keys) == [0, 1]
    assert len(list(bpf.keys(own_flowmap))) == 2


@pytest.mark.clause("SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_that_has_expired_is_not_found_until_its_removal(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """Its connection lives and its route is good: that it is torn down is all there is to see."""
    with hold("__nf_flow_snoop_del") as stop:
        flow = talk.offloaded()
        # Not before: on a slow machine it would be gone before anybody waits for it.  The flow
        # takes a shorter timeout with its next packet (flow_offload_refresh()).
        netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 1})
        talk.exchange()
        stop.reached()
        assert talk.entry() is not None
        assert bpf.entries(own_flowmap) == 1
        assert windows.found(own_flowmap, flow.keys) == [None, None]
        assert list(bpf.keys(own_flowmap)) == []
        stop.release()
    wait_for("the entry to go", lambda: bpf.entries(own_flowmap) == 0)


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
        router = topology.build(Plan(name="exit"), own)
        talk = traffic.connect(router, UDP_PROTOCOL, 4, own)
        flow = talk.offloaded()
        fd = make_flowmap(router.namespace)
        assert windows.found(fd, flow.keys) == [0, 1]
        traffic.close_quietly(talk.client, talk.server)

        with hold(place, comm="kworker") as stop:
            netns.remove(router.namespace)
            stop.reached()
            if place != "nf_flow_snoop_fini_net":
                assert (windows.found(fd, flow.keys), bpf.entries(fd)) == ([None, None], 0)
            if closed:
                os.close(fd)
                modules.await_unreferenced(flowmap_module)
            stop.release()
        if not closed:
            wait_for("the map to be empty", lambda: bpf.entries(fd) == 0)
            assert (windows.found(fd, flow.keys), list(bpf.keys(fd))) == ([None, None], [])


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
        router = topology.build(Plan(name="exit"), own)
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
            windows.in_vain("the exit to go on", beyond.somebody_came)
            freeing.release()
            beyond.reached()
            beyond.release()
    modules.await_unreferenced(flowmap_module)


@pytest.mark.clause("FM-9", "SN-6", "RT-1")
@pytest.mark.usefixtures("readers_give_way")
def test_flow_is_deleted_between_a_lookup_and_the_use_of_its_value(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
    namespace: Namespaces,
) -> None:
    inside = own_router.namespace
    talk, *others = [own_connection(UDP_PROTOCOL, 4, server_port=7000 + n) for n in range(4)]
    flow = talk.offloaded()
    told = bpf.lookup(own_flowmap, flow.original)
    program = load("xdp_flow_lookup", own_flowmap)
    packet = frame(own_router.client, own_router.inside, talk.tuple)
    runner = process.Waiting(
        lambda: bpf_programs.run_xdp(
            program.program_fd("xdp_flow_lookup"), packet, own_router.inside.index, inside
        ),
        FAR,
    )
    windows.collect_garbage_here(namespace("fm-gc"))
    # The program updates an array before its lookup, and after it with the value.
    with (
        hold("flow_offload_free", cpu=NEAR) as deletion,
        hold("array_map_update_elem", task=runner.pid, skip=1) as stop,
    ):
        runner.begin()
        stop.reached(busy=True)
        conntrack.flush(inside)
        deletion.reached(busy=True)
        deletion.release()
        wait_for("the flow to be gone", lambda: bpf.entries(own_flowmap) == 0)
        assert windows.found(own_flowmap, flow.keys) == [None, None]
        # Had its memory been freed, they would have it now: it was let go on this CPU, too.  No
        # sanitizer looks at what a program reads.
        for other in others:
            other.offloaded()
        stop.release()
    assert runner.join() == XDP_PASS
    raw = bpf.lookup_raw(program.map_fd("last_values"), bytes(4), len(bytes(told)))
    seen = Value.from_buffer_copy(raw)
    seen.expires = told.expires = 0  # the program's lookup has refreshed the flow
    assert bytes(seen) == bytes(told)
