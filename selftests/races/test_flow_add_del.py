# SPDX-License-Identifier: GPL-2.0-only
"""Flow addition and deletion racing lookups, walks, map and snoop table changes, netns exit."""

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
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap
from fixtures.guest.race import python_race
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import IPPROTO_UDP, Connection, Flow

pytestmark = pytest.mark.soak

ROUNDS = 20
DEADLINE = 120


def _flow_add_del(router: Router, conn: Connection) -> python_race.Actor:
    """Offload the connection again and flush it."""

    def act(_: int) -> None:
        for _attempt in range(2):
            conn.exchange()
            conn.exchange()
            conntrack.flush(router.namespace)

    return act


def _lookup_both_directions(fd: int, flow: Flow, times: int = 60) -> python_race.Actor:
    """Look up both directions; a value must match its key's direction."""

    def act(_: int) -> None:
        for _attempt in range(times):
            for direction, key in enumerate(flow.keys):
                value = bpf.lookup_or_none(fd, key)
                assert value is None or value.dir == direction

    return act


def _is_empty(fd: int) -> bool:
    return not list(bpf.iterate_keys(fd))


def _assert_mirroring_works(router: Router, conn: Connection, fd: int) -> None:
    """Check that lookups and flush work after the race as before it."""
    flow = conn.wait_offloaded()
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    conntrack.flush(router.namespace)
    assert [bpf.lookup_or_none(fd, key) for key in flow.keys] == [None, None]


@pytest.mark.clause("RT-1.1", "SN-6.4")
@pytest.mark.deadline(DEADLINE)
def test_flush_vs_lookup_value_matches_key(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """Lookups racing a conntrack flush miss or return the value of their own key."""
    flow = udp_connection.wait_offloaded()
    report = python_race.run(
        {
            "flows": _flow_add_del(private_router, udp_connection),
            "lookup": _lookup_both_directions(private_flowmap, flow),
        },
        ROUNDS,
    )
    report.require_outcomes({"flows": {"ok"}, "lookup": {"ok"}})
    _assert_mirroring_works(private_router, udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "FM-6.2")
@pytest.mark.deadline(DEADLINE)
def test_flush_vs_key_walk_terminates(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """Key walks and batches racing a conntrack flush terminate."""

    def walk(_: int) -> None:
        for _attempt in range(20):
            assert len(list(bpf.iterate_keys(private_flowmap, limit=1000))) <= 1000
            bpf.lookup_batch(private_flowmap, 16)

    report = python_race.run(
        {"flows": _flow_add_del(private_router, udp_connection), "walk": walk}, ROUNDS
    )
    # EAGAIN: the table changed during the batch lookup, which has to be repeated.
    report.require_outcomes({"flows": {"ok"}, "walk": {"ok", "EAGAIN"}})
    _assert_mirroring_works(private_router, udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "SN-9.3")
@pytest.mark.deadline(DEADLINE)
def test_map_create_free_vs_flow_add_keeps_mirroring(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """Flows are mirrored after a race of map creation and free with flow addition."""
    udp_connection.wait_offloaded()

    def maps(_: int) -> None:
        for _attempt in range(5):
            with bpf.open_flowmap(private_router.namespace):
                pass

    report = python_race.run(
        {"flows": _flow_add_del(private_router, udp_connection), "maps": maps}, ROUNDS
    )
    report.require_outcomes({"flows": {"ok"}, "maps": {"ok"}})
    _assert_mirroring_works(private_router, udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "SN-3.2", "SN-3.4")
@pytest.mark.deadline(DEADLINE)
def test_flow_added_during_map_create_is_mirrored_once(
    private_router: Router, udp_connection: Connection, cleanup: ExitStack
) -> None:
    """A flow added during map creation is in the map once.

    Either the initial walk or the addition mirrors it.
    """
    flow = udp_connection.wait_offloaded()
    overlapping = 0
    for _ in range(8):
        conntrack.flush(private_router.namespace)
        receive, send_fd = _fd_channel(cleanup)

        def create(_: int, send_fd: Callable[[int], None] = send_fd) -> None:
            with bpf.open_flowmap(private_router.namespace) as fd:
                send_fd(fd)

        def add(_: int) -> None:
            udp_connection.exchange()
            udp_connection.exchange()

        overlapping += python_race.run({"create": create, "add": add}, 1).overlaps
        with bpf.closing_fd(receive()) as fd:
            assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
            assert len(list(bpf.iterate_keys(fd))) == 2
    assert overlapping, "map creation and flow addition never overlapped"


def _fd_channel(cleanup: ExitStack) -> tuple[Callable[[], int], Callable[[int], None]]:
    """Return functions for a child to send an fd and for its parent to receive it."""
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    cleanup.callback(receiver.close)
    cleanup.callback(sender.close)
    receiver.settimeout(5)

    def receive() -> int:
        _, fds, _, _ = socket.recv_fds(receiver, 1, 1)
        return fds[0]

    return receive, lambda fd: bpf.send_fd_over_socket(sender, fd)


@pytest.mark.clause("RT-1.1", "SN-9.3")
@pytest.mark.deadline(DEADLINE)
def test_snoop_table_create_delete_vs_flow_add_keeps_mirroring(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """Flows are mirrored after a race of snoop table creation and deletion with flow addition."""
    udp_connection.wait_offloaded()

    def tables(_: int) -> None:
        flowtable.create_snoop_table("spy", "all", private_router.namespace)
        flowtable.drop_table("spy", private_router.namespace)

    report = python_race.run(
        {"flows": _flow_add_del(private_router, udp_connection), "tables": tables}, ROUNDS
    )
    report.require_outcomes({"flows": {"ok"}, "tables": {"ok"}})
    _assert_mirroring_works(private_router, udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "SN-6.6")
@pytest.mark.deadline(DEADLINE)
def test_device_down_vs_lookup_ends_in_miss(make_flowmap: MakeFlowmap) -> None:
    """Lookups racing a device that goes down end in misses.

    Each race has its own router: the device loses the addresses and routes that the flow needs.
    """
    for number in range(3):
        with ExitStack() as own:
            router = client_router_server.build_router(
                RouterConfig(netns_prefix=f"down{number}"), own
            )
            flow = connections.connect(router, IPPROTO_UDP, 4, own).wait_offloaded()
            fd = make_flowmap(router.namespace)
            assert bpf.lookup_or_none(fd, flow.original) is not None
            down = [rtnetlink.set_down(router.wan.ifindex)]

            def take_down(
                _: int, messages: list[ifinfmsg] = down, name: str = router.namespace
            ) -> None:
                netlink.transact(netlink.NETLINK_ROUTE, messages, name)

            report = python_race.run(
                {"device": take_down, "lookup": _lookup_both_directions(fd, flow, 400)}, 1
            )
            report.require_outcomes({"device": {"ok"}, "lookup": {"ok"}})
            assert [bpf.lookup_or_none(fd, key) for key in flow.keys] == [None, None]
            os.close(fd)


@pytest.mark.clause("RT-1.1", "FM-4.7", "FM-9.1")
@pytest.mark.deadline(DEADLINE)
def test_flush_vs_prog_lookup_sees_hits_and_misses(
    private_router: Router,
    private_flowmap: int,
    udp_connection: Connection,
    cleanup: ExitStack,
    load_bpf: LoadBpf,
) -> None:
    """XDP program lookups racing a conntrack flush see hits in both directions and misses."""
    program = load_bpf("xdp_flow_lookup", private_flowmap)
    for port in (private_router.lan, private_router.wan):
        program.attach_xdp("xdp_flow_lookup", port.ifindex, private_router.namespace, cleanup)

    def send(_: int) -> None:
        # Send in both directions, so that a flushed flow is offloaded again.
        for _attempt in range(10):
            udp_connection.exchange()

    def flush(_: int) -> None:
        for _attempt in range(5):
            conntrack.flush(private_router.namespace)

    report = python_race.run({"packets": send, "flush": flush}, ROUNDS)
    report.require_outcomes({"packets": {"ok"}, "flush": {"ok"}})
    # The program must have seen hits and misses.
    original, reply, miss = (
        struct.unpack("=Q", bpf.lookup_raw(program.map_fd("counters"), struct.pack("=I", which), 8))
        for which in range(3)
    )
    print("hits", *original, *reply, "misses", *miss)
    assert min(*original, *reply) >= ROUNDS
    assert miss[0] >= ROUNDS


@pytest.mark.clause("RT-1.1", "FM-2.3", "SN-6.8")
@pytest.mark.deadline(DEADLINE)
def test_netns_exit_vs_lookup_empties_map(make_flowmap: MakeFlowmap) -> None:
    """Lookups racing the exit of the map's netns end in misses and an empty map.

    The netns also has a source table and a snoop table.  Removing its name takes so little time
    that the lookups may not have started; such a round is repeated.
    """
    overlapping = number = 0
    while overlapping < 3:
        number += 1
        assert number <= 12, f"the actors overlapped in {overlapping} of 12 rounds"
        with ExitStack() as own:
            router = client_router_server.build_router(
                RouterConfig(netns_prefix=f"exit{number}"), own
            )
            flowtable.create_snoop_table("spy", "all", router.namespace)
            conn = connections.connect(router, IPPROTO_UDP, 4, own)
            flow = conn.wait_offloaded()
            fd = make_flowmap(router.namespace)
            assert bpf.lookup_or_none(fd, flow.original) is not None
            connections.close_without_shutdown(conn.client, conn.server)

            def remove_netns(_: int, name: str = router.namespace) -> None:
                netns.remove(name)

            report = python_race.run(
                {"exit": remove_netns, "lookup": _lookup_both_directions(fd, flow, 400)}, 1
            )
            report.require_outcomes({"exit": {"ok"}, "lookup": {"ok"}}, overlap=None)
            overlapping += report.overlaps
            wait_for("the map to be empty", partial(_is_empty, fd))
            assert bpf.lookup_or_none(fd, uapi.Key.from_buffer_copy(flow.reply)) is None
            os.close(fd)
