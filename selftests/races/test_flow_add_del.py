# SPDX-License-Identifier: GPL-2.0-only
"""Flows that come and go against everything that reads, creates and frees."""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Flowmap, Load
from fixtures.guest.race import python_race
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, Flow

pytestmark = pytest.mark.campaign

ROUNDS = 20
DEADLINE = 120


def _come_and_go(router: Router, talk: Connection) -> python_race.Actor:
    """Offload the connection anew and flush it away."""

    def act(_: int) -> None:
        for _attempt in range(2):
            talk.exchange()
            talk.exchange()
            conntrack.flush(router.namespace)

    return act


def _look_up(fd: int, flow: Flow, times: int = 60) -> python_race.Actor:
    """Look both directions up; a value must belong to its key."""

    def act(_: int) -> None:
        for _attempt in range(times):
            for direction, key in enumerate(flow.keys):
                value = bpf.found(fd, key)
                assert value is None or value.dir == direction

    return act


def _is_empty(fd: int) -> bool:
    return not list(bpf.keys(fd))


def _settled(router: Router, talk: Connection, fd: int) -> None:
    """After the race the map works as before it."""
    flow = talk.offloaded()
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    conntrack.flush(router.namespace)
    assert [bpf.found(fd, key) for key in flow.keys] == [None, None]


@pytest.mark.clause("RT-1", "SN-6", "FM-9")
@pytest.mark.deadline(DEADLINE)
def test_flush_against_lookup(own_router: Router, own_flowmap: int, talk: Connection) -> None:
    flow = talk.offloaded()
    report = python_race.run(
        {"flows": _come_and_go(own_router, talk), "lookup": _look_up(own_flowmap, flow)}, ROUNDS
    )
    report.require({"flows": {"ok"}, "lookup": {"ok"}})
    _settled(own_router, talk, own_flowmap)


@pytest.mark.clause("RT-1", "FM-6")
@pytest.mark.deadline(DEADLINE)
def test_flush_against_walk(own_router: Router, own_flowmap: int, talk: Connection) -> None:
    def walk(_: int) -> None:
        for _attempt in range(20):
            assert len(list(bpf.keys(own_flowmap, limit=1000))) <= 1000
            bpf.lookup_batch(own_flowmap, 16)

    report = python_race.run({"flows": _come_and_go(own_router, talk), "walk": walk}, ROUNDS)
    # EAGAIN: a batch that a change has overtaken may ask for another try.
    report.require({"flows": {"ok"}, "walk": {"ok", "EAGAIN"}})
    _settled(own_router, talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-3", "MM-7")
@pytest.mark.deadline(DEADLINE)
def test_map_create_and_free_against_flow_add(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    talk.offloaded()

    def maps(_: int) -> None:
        for _attempt in range(5):
            with bpf.flowmap(own_router.namespace):
                pass

    report = python_race.run({"flows": _come_and_go(own_router, talk), "maps": maps}, ROUNDS)
    report.require({"flows": {"ok"}, "maps": {"ok"}})
    _settled(own_router, talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-3")
@pytest.mark.deadline(DEADLINE)
def test_flow_added_while_a_map_is_created_is_not_missed(
    own_router: Router, talk: Connection, cleanup: ExitStack
) -> None:
    """The first synchronisation and an addition at one moment: there once, from whichever."""
    flow = talk.offloaded()
    met = 0
    for _ in range(8):
        conntrack.flush(own_router.namespace)
        held, sender = _pass_descriptor(cleanup)

        def create(_: int, sender: Callable[[int], None] = sender) -> None:
            with bpf.flowmap(own_router.namespace) as fd:
                sender(fd)

        def add(_: int) -> None:
            talk.exchange()
            talk.exchange()

        met += python_race.run({"create": create, "add": add}, 1).overlaps
        with bpf.closing(held()) as fd:
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
            assert len(list(bpf.keys(fd))) == 2
    assert met, "creation and addition never met"


def _pass_descriptor(cleanup: ExitStack) -> tuple[Callable[[], int], Callable[[int], None]]:
    """A way for a child to hand a descriptor to its parent."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    cleanup.callback(near.close)
    cleanup.callback(far.close)
    near.settimeout(5)

    def receive() -> int:
        _, fds, _, _ = socket.recv_fds(near, 1, 1)
        return fds[0]

    return receive, lambda fd: bpf.send_fd(far, fd)


@pytest.mark.clause("RT-1", "SN-8", "SN-9")
@pytest.mark.deadline(DEADLINE)
def test_snoop_table_create_and_delete_against_flow_add(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    talk.offloaded()

    def tables(_: int) -> None:
        flowtable.create_snoop("spy", "all", own_router.namespace)
        flowtable.drop_table("spy", own_router.namespace)

    report = python_race.run({"flows": _come_and_go(own_router, talk), "tables": tables}, ROUNDS)
    report.require({"flows": {"ok"}, "tables": {"ok"}})
    _settled(own_router, talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-6", "SN-8")
@pytest.mark.deadline(DEADLINE)
def test_device_down_against_lookup(make_flowmap: Flowmap) -> None:
    """A router for each race: a device that was down has lost what the flow needs."""
    for number in range(3):
        with ExitStack() as own:
            router = client_router_server.build(Plan(name=f"down{number}"), own)
            flow = connections.connect(router, UDP_PROTOCOL, 4, own).offloaded()
            fd = make_flowmap(router.namespace)
            assert bpf.found(fd, flow.original) is not None
            down = [rtnetlink.down(router.outside.index)]

            def unplug(
                _: int, messages: list[ifinfmsg] = down, name: str = router.namespace
            ) -> None:
                netlink.transact(netlink.NETLINK_ROUTE, messages, name)

            report = python_race.run({"device": unplug, "lookup": _look_up(fd, flow, 400)}, 1)
            report.require({"device": {"ok"}, "lookup": {"ok"}})
            assert [bpf.found(fd, key) for key in flow.keys] == [None, None]
            os.close(fd)


@pytest.mark.clause("RT-1", "FM-9")
@pytest.mark.deadline(DEADLINE)
def test_flush_against_program_lookup(
    own_router: Router, own_flowmap: int, talk: Connection, cleanup: ExitStack, load: Load
) -> None:
    program = load("xdp_flow_lookup", own_flowmap)
    for port in (own_router.inside, own_router.outside):
        program.attach_xdp("xdp_flow_lookup", port.index, own_router.namespace, cleanup)

    def send(_: int) -> None:
        # Both directions, so that a flow that was flushed away is offloaded anew.
        for _attempt in range(10):
            talk.exchange()

    def flush(_: int) -> None:
        for _attempt in range(5):
            conntrack.flush(own_router.namespace)

    report = python_race.run({"packets": send, "flush": flush}, ROUNDS)
    report.require({"packets": {"ok"}, "flush": {"ok"}})
    # The program must have seen both: flows that are there, and flows just flushed away.
    original, reply, miss = (
        struct.unpack("=Q", bpf.lookup_raw(program.map_fd("counters"), struct.pack("=I", which), 8))
        for which in range(3)
    )
    print("hits", *original, *reply, "misses", *miss)
    assert min(*original, *reply) >= ROUNDS
    assert miss[0] >= ROUNDS


@pytest.mark.clause("RT-1", "FM-2", "SN-8")
@pytest.mark.deadline(DEADLINE)
def test_namespace_exit_against_lookup(make_flowmap: Flowmap) -> None:
    """Namespaces end, each with a source table, a snoop table and a map being read.

    To take a name away is so short that the reader may not have begun: then once more.
    """
    met = number = 0
    while met < 3:
        number += 1
        assert number <= 12, f"the actors met {met} times in 12"
        with ExitStack() as own:
            router = client_router_server.build(Plan(name=f"exit{number}"), own)
            flowtable.create_snoop("spy", "all", router.namespace)
            talk = connections.connect(router, UDP_PROTOCOL, 4, own)
            flow = talk.offloaded()
            fd = make_flowmap(router.namespace)
            assert bpf.found(fd, flow.original) is not None
            connections.close_quietly(talk.client, talk.server)

            def leave(_: int, name: str = router.namespace) -> None:
                netns.remove(name)

            report = python_race.run({"exit": leave, "lookup": _look_up(fd, flow, 400)}, 1)
            report.require({"exit": {"ok"}, "lookup": {"ok"}}, overlap=None)
            met += report.overlaps
            wait_for("the map to be empty", partial(_is_empty, fd))
            assert bpf.found(fd, uapi.Key.from_buffer_copy(flow.reply)) is None
            os.close(fd)
