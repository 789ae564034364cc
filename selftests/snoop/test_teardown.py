# SPDX-License-Identifier: GPL-2.0-only
"""A flow that ends: found before, missed at once when its table stops serving it."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import Asker, Readers
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, netns, nftables, rtnetlink
from fixtures.guest.pytest_plugin.fixtures import Connect, Flowmap, Load
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection, Flow

TCP_ENDS: tuple[flow_teardown.End, ...] = (
    flow_teardown.finish,
    flow_teardown.server_finish,
    flow_teardown.reset,
    flow_teardown.server_reset,
    flow_teardown.silence,
)
ENDS: tuple[flow_teardown.End, ...] = (
    flow_teardown.conntrack_delete,
    flow_teardown.conntrack_flush,
    flow_teardown.flowtable_delete,
    flow_teardown.table_delete,
    flow_teardown.ruleset_flush,
    flow_teardown.device_down,
    flow_teardown.inner_device_down,
    flow_teardown.device_delete,
    flow_teardown.device_move,
    flow_teardown.route_change,
    flow_teardown.reload,
)
# A stale route has a test of its own, below: over IPv6 it is not one for both directions.
IPV6_ENDS = (
    flow_teardown.conntrack_delete,
    flow_teardown.device_down,
    flow_teardown.device_delete,
    flow_teardown.reload,
)

Watch = Callable[[Flow], Readers]

_SOON = 60
_HOUR = 3600
_MORE = b"and one thing more"


def _each(name: str, protocol: int, version: int, listed: Sequence[flow_teardown.End]) -> list[Any]:
    """One case for each end, of flows of one kind."""
    return [pytest.param(protocol, version, end, id=f"{name}-{end.__name__}") for end in listed]


def _no_longer_served(talk: Connection) -> bool:
    """By conntrack.

    IPS_OFFLOAD alone does not say it: the end of a stale flow may take it from the next one
    (docs/findings.md), whose entry has its day of life nevertheless (NF_CT_DAY in
    ``flow_offload_add()``).  Of UDP no other entry has.
    """
    entry = talk.entry()
    if entry is None or entry.offloaded:
        return entry is None
    return talk.tuple.protocol != UDP_PROTOCOL or (entry.timeout or 0) < _HOUR


def _directions(fd: int, flow: Flow) -> list[int | None]:
    values = [bpf.found(fd, key) for key in flow.keys]
    return [None if value is None else int(value.dir) for value in values]


@pytest.fixture
def watch(own_router: Router, own_flowmap: int, make_flowmap: Flowmap, load: Load) -> Watch:
    """Expects every reader to see a flow, and gives them to be asked again.

    There are two maps: one heard of the flow as it came, the other found it there.
    """
    asker = Asker(load("lookup_probe", own_flowmap, "by_xdp"), "by_xdp")

    def found(flow: Flow) -> Readers:
        readers = Readers((own_flowmap, make_flowmap(own_router.namespace)), asker)
        readers.expect_found(flow)
        return readers

    return found


@pytest.mark.clause("SN-6")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("end", TCP_ENDS, ids=lambda end: end.__name__)
def test_closed_connection_is_missed(
    own_router: Router, own_connection: Connect, watch: Watch, end: flow_teardown.End, version: int
) -> None:
    talk = own_connection(TCP_PROTOCOL, version)
    flow = talk.offloaded()
    readers = watch(flow)

    # A FIN or RST only marks a flow; its table serves it until it expires (or a SYN comes).
    # Not before everybody has seen it: the kernel's clock does not wait for a slow machine.
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_tcp_timeout": 2})
    talk.exchange()
    end(talk, own_router)
    wait_for("the flow table to stop serving the flow", lambda: _no_longer_served(talk))
    readers.expect_missed(flow)
    # A connection whose FIN or RST the table has seen is given up soon (TCP_CONNTRACK_CLOSE),
    # one that was only silent in days.
    entry = talk.entry()
    given_up = entry is None or (entry.timeout is not None and entry.timeout < _SOON)
    assert given_up == (end is not flow_teardown.silence)


def client_half(talk: Connection) -> tuple[socket.socket, socket.socket]:
    """The client has nothing more to send; the server has."""
    talk.client.shutdown(socket.SHUT_WR)
    return talk.server, talk.client


def server_half(talk: Connection) -> tuple[socket.socket, socket.socket]:
    """The server has nothing more to send; the client has."""
    talk.server.shutdown(socket.SHUT_WR)
    return talk.client, talk.server


@pytest.mark.clause("SN-6", "SN-5")
@pytest.mark.parametrize("half", [client_half, server_half], ids=lambda half: half.__name__)
def test_half_closed_connection_is_found_as_long_as_it_is_served(
    own_router: Router,
    own_connection: Connect,
    watch: Watch,
    half: Callable[[Connection], tuple[socket.socket, socket.socket]],
) -> None:
    talk = own_connection(TCP_PROTOCOL, 4)
    flow = talk.offloaded()
    readers = watch(flow)

    sender, receiver = half(talk)
    assert sender.recv(1) == b""
    for _ in range(3):
        sender.sendall(_MORE)
        assert receiver.recv(len(_MORE)) == _MORE
        assert not _no_longer_served(talk)
        readers.expect_found(flow)

    # The FIN of the other half is the last packet but for its acknowledgement.
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_tcp_timeout": 2})
    sender.shutdown(socket.SHUT_WR)
    assert receiver.recv(1) == b""
    wait_for("the flow table to stop serving the flow", lambda: _no_longer_served(talk))
    readers.expect_missed(flow)


@pytest.mark.clause("SN-6")
@pytest.mark.parametrize(
    ("protocol", "version", "end"),
    [
        *_each("tcp", TCP_PROTOCOL, 4, ENDS),
        *_each("udp", UDP_PROTOCOL, 4, ENDS),
        *_each("udp6", UDP_PROTOCOL, 6, IPV6_ENDS),
    ],
)
def test_ended_flow_is_missed_at_once(
    own_router: Router,
    own_connection: Connect,
    watch: Watch,
    end: flow_teardown.End,
    protocol: int,
    version: int,
) -> None:
    talk = own_connection(protocol, version)
    flow = talk.offloaded()
    readers = watch(flow)
    end(talk, own_router)
    readers.expect_missed(flow)


@pytest.mark.clause("SN-6")
def test_direction_with_a_stale_route_is_missed_at_once(
    own_router: Router, own_flowmap: int, own_connection: Connect, watch: Watch
) -> None:
    """IPv6 knows which routes a change concerns; with IPv4 all are looked at again."""
    talk = own_connection(UDP_PROTOCOL, 6)
    flow = talk.offloaded()
    readers = watch(flow)
    flow_teardown.route_change(talk, own_router)
    there, back = _directions(own_flowmap, flow)
    assert there is None
    # The table forwards the answers until its garbage collection looks at both directions.
    assert back == 1 or _no_longer_served(talk)
    wait_for("the flow table to stop serving the flow", lambda: _no_longer_served(talk))
    readers.expect_missed(flow)


def mtu_change(router: Router) -> None:
    """ip link set r1 mtu 1400."""
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.mtu(router.outside.index, 1400)], router.namespace
    )


def neighbour_change(router: Router) -> None:
    """ip neigh replace: the server has another station."""
    host = router.server.addresses[4]
    moved = rtnetlink.neighbour(router.outside.index, host, router.server.mac)
    netlink.transact(netlink.NETLINK_ROUTE, [moved], router.namespace)


def hook_removal(router: Router) -> None:
    """nft delete flowtable ... devices: r1 no longer feeds the table."""
    nftables.run("delete flowtable inet fw ft { devices = { r1 }; }", router.namespace)


def table_flush(router: Router) -> None:
    """nft flush table: the rules go, the flow table stays and serves what it has."""
    nftables.run("flush table inet fw", router.namespace)


def address_change(router: Router) -> None:
    """ip addr add: every cached route is looked at again."""
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.address(router.outside.index, "198.51.100.99", 32)],
        router.namespace,
    )


@pytest.mark.clause("SN-6", "FM-12")
@pytest.mark.parametrize(
    "change",
    [mtu_change, neighbour_change, hook_removal, table_flush, address_change],
    ids=lambda change: change.__name__,
)
def test_map_follows_its_source_through_changes(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    change: Callable[[Router], None],
) -> None:
    """Whether such a change ends a flow is the flow table's to decide, not ours."""
    talk = own_connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()
    change(own_router)
    for _ in range(3):
        served = not _no_longer_served(talk)
        found = [bpf.found(own_flowmap, key) is not None for key in flow.keys]
        # A table gives a flow with a stale route up at its next packet; the map is earlier.
        assert served or found == [False, False]
        talk.exchange()

    def found_again() -> bool:
        talk.exchange()
        return _directions(own_flowmap, flow) == [0, 1]

    # Not by IPS_OFFLOAD: garbage collection of the stale flow may clear it (docs/findings.md).
    wait_for("the flow to be there again, or still", found_again)


@pytest.mark.clause("SN-6", "SN-4")
def test_connection_reopened_on_the_same_ports_is_a_new_flow(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    first = own_connection(TCP_PROTOCOL, 4, client_port=40000)
    before = first.offloaded()
    first.reset()
    first.server.close()
    # The flow that the RST marked is torn down by the SYN.
    after = own_connection(TCP_PROTOCOL, 4, client_port=40000).offloaded()
    assert bytes(after.original) == bytes(before.original)
    assert _directions(own_flowmap, after) == [0, 1]
    assert len(conntrack.offloaded(own_router.namespace)) == 1
    assert len(list(bpf.keys(own_flowmap))) == 2


@pytest.mark.clause("SN-6", "SN-4")
def test_same_connection_is_found_again(
    own_router: Router, own_connection: Connect, watch: Watch
) -> None:
    talk = own_connection(UDP_PROTOCOL, 4)
    for _ in range(3):
        flow = talk.offloaded()
        readers = watch(flow)
        conntrack.flush(own_router.namespace)
        readers.expect_missed(flow)


@pytest.mark.clause("SN-6")
def test_end_of_one_flow_leaves_the_others(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    talks = [own_connection(UDP_PROTOCOL, 4, server_port=7000 + number) for number in range(4)]
    flows = [talk.offloaded() for talk in talks]
    for gone in range(4):
        conntrack.delete(talks[gone].tuple, own_router.namespace)
        found = [bpf.found(own_flowmap, flow.original) is not None for flow in flows]
        assert found == [number > gone for number in range(4)]
