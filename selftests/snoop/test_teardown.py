# SPDX-License-Identifier: GPL-2.0-only
"""Flow teardown: found before, a miss as soon as the source table stops serving the flow."""

import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe, MapReaders
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, netns, nftables, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow

by_fin_or_rst = pytest.mark.clause("SN-6.2")
by_expiry = pytest.mark.clause("SN-6.3")
by_conntrack = pytest.mark.clause("SN-6.4")
by_route = pytest.mark.clause("SN-6.5")
by_device = pytest.mark.clause("SN-6.6")
by_table = pytest.mark.clause("SN-6.7")

TCP_TEARDOWNS: dict[flow_teardown.TeardownAction, pytest.MarkDecorator] = {
    flow_teardown.client_fin: by_fin_or_rst,
    flow_teardown.server_fin: by_fin_or_rst,
    flow_teardown.client_rst: by_fin_or_rst,
    flow_teardown.server_rst: by_fin_or_rst,
    flow_teardown.idle_timeout: by_expiry,
}
TEARDOWNS: dict[flow_teardown.TeardownAction, pytest.MarkDecorator] = {
    flow_teardown.conntrack_delete: by_conntrack,
    flow_teardown.conntrack_flush: by_conntrack,
    flow_teardown.flowtable_delete: by_table,
    flow_teardown.table_delete: by_table,
    flow_teardown.ruleset_flush: by_table,
    flow_teardown.wan_down: by_device,
    flow_teardown.lan_down: by_device,
    flow_teardown.wan_delete: by_device,
    flow_teardown.wan_move_netns: by_device,
    flow_teardown.stale_route: by_route,
    flow_teardown.ruleset_reload: by_table,
}
# A stale IPv6 route has its own test below: it is stale in one direction only.
IPV6_TEARDOWNS = (
    flow_teardown.conntrack_delete,
    flow_teardown.wan_down,
    flow_teardown.wan_delete,
    flow_teardown.ruleset_reload,
)

ReadersFactory = Callable[[Flow], MapReaders]

_MINUTE = 60
_HOUR = 3600
_PAYLOAD = b"and one thing more"


def _teardown_cases(
    name: str, protocol: int, version: int, teardowns: Iterable[flow_teardown.TeardownAction]
) -> list[Any]:
    """Return one test case for each teardown, with flows of one kind."""
    return [
        pytest.param(
            protocol,
            version,
            teardown,
            id=f"{name}-{teardown.__name__}",
            marks=TEARDOWNS[teardown],
        )
        for teardown in teardowns
    ]


def _no_longer_offloaded(conn: Connection) -> bool:
    """Return whether conntrack says that the flow is no longer offloaded.

    IPS_OFFLOAD alone does not tell: the teardown of a stale flow may clear it for the flow that
    follows (docs/findings.md).  That flow's entry has a timeout of a day nevertheless (NF_CT_DAY in
    ``flow_offload_add()``), which no other UDP entry has.
    """
    ct_entry = conn.conntrack_entry()
    if ct_entry is None or ct_entry.offloaded:
        return ct_entry is None
    return conn.tuple.protocol != IPPROTO_UDP or (ct_entry.timeout or 0) < _HOUR


def _lookup_directions(fd: int, flow: Flow) -> list[int | None]:
    """Return the direction that each key's lookup finds, or None for a miss."""
    values = [bpf.lookup_or_none(fd, key) for key in flow.keys]
    return [None if value is None else int(value.dir) for value in values]


@pytest.fixture
def readers_of(
    private_router: Router, private_flowmap: int, make_flowmap: MakeFlowmap, load_bpf: LoadBpf
) -> ReadersFactory:
    """Return a factory that checks that every reader finds a flow, and returns the readers.

    The readers are a program and two maps: one mirrored the flow when it was added, the other in
    its initial walk.
    """
    prog_reader = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_xdp"), "by_xdp")

    def checked_readers(flow: Flow) -> MapReaders:
        readers = MapReaders((private_flowmap, make_flowmap(private_router.namespace)), prog_reader)
        readers.assert_hit(flow)
        return readers

    return checked_readers


@pytest.mark.parametrize(
    "teardown",
    [
        pytest.param(teardown, id=teardown.__name__, marks=shows)
        for teardown, shows in TCP_TEARDOWNS.items()
    ],
)
def test_tcp_flow_after_close_is_miss(
    private_router: Router,
    open_private_connection: OpenConnection,
    readers_of: ReadersFactory,
    teardown: flow_teardown.TeardownAction,
) -> None:
    """A TCP flow is a miss once its source table stops serving it after FIN, RST or a timeout.

    The flows of both IP versions share the wait.
    """
    conns = [open_private_connection(IPPROTO_TCP, version) for version in (4, 6)]
    flows = [conn.wait_offloaded() for conn in conns]
    readers = [readers_of(flow) for flow in flows]

    # A FIN or RST only marks a flow as closing; its table serves it until it expires or a SYN
    # arrives.  Shorten the timeout only after the readers' check, which a slow machine delays.
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_tcp_timeout": 2})
    for conn in conns:
        conn.exchange()
        teardown(conn, private_router)
    for conn, flow, reader in zip(conns, flows, readers, strict=True):
        wait_for(
            f"the flow table to stop serving {conn.tuple}", partial(_no_longer_offloaded, conn)
        )
        reader.assert_miss(flow)
        # conntrack drops a connection soon after FIN or RST (TCP_CONNTRACK_CLOSE), an idle one
        # after days.
        left = conn.conntrack_entry()
        expires_soon = left is None or (left.timeout is not None and left.timeout < _MINUTE)
        assert expires_soon == (teardown is not flow_teardown.idle_timeout), conn.tuple


def client_shutdown_wr(conn: Connection) -> tuple[socket.socket, socket.socket]:
    """Close the client's sending direction; return the remaining sender and its receiver."""
    conn.client.shutdown(socket.SHUT_WR)
    return conn.server, conn.client


def server_shutdown_wr(conn: Connection) -> tuple[socket.socket, socket.socket]:
    """Close the server's sending direction; return the remaining sender and its receiver."""
    conn.server.shutdown(socket.SHUT_WR)
    return conn.client, conn.server


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("SN-6.2")
@pytest.mark.parametrize(
    "half_close",
    [client_shutdown_wr, server_shutdown_wr],
    ids=lambda half_close: half_close.__name__,
)
def test_half_closed_tcp_flow_is_found_while_served(
    private_router: Router,
    open_private_connection: OpenConnection,
    readers_of: ReadersFactory,
    half_close: Callable[[Connection], tuple[socket.socket, socket.socket]],
) -> None:
    """A half-closed TCP flow is found while it is offloaded, and a miss after the second FIN."""
    conn = open_private_connection(IPPROTO_TCP, 4)
    flow = conn.wait_offloaded()
    readers = readers_of(flow)

    sender, receiver = half_close(conn)
    assert sender.recv(1) == b""
    for _ in range(3):
        sender.sendall(_PAYLOAD)
        assert receiver.recv(len(_PAYLOAD)) == _PAYLOAD
        assert not _no_longer_offloaded(conn)
        readers.assert_hit(flow)

    # Only the acknowledgement follows the second FIN.
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_tcp_timeout": 2})
    sender.shutdown(socket.SHUT_WR)
    assert receiver.recv(1) == b""
    wait_for("the flow table to stop serving the flow", lambda: _no_longer_offloaded(conn))
    readers.assert_miss(flow)


@pytest.mark.clause("SN-6.1")
@pytest.mark.parametrize(
    ("protocol", "version", "teardown"),
    [
        *_teardown_cases("tcp", IPPROTO_TCP, 4, TEARDOWNS),
        *_teardown_cases("udp", IPPROTO_UDP, 4, TEARDOWNS),
        *_teardown_cases("udp6", IPPROTO_UDP, 6, IPV6_TEARDOWNS),
    ],
)
def test_flow_after_teardown_is_miss_at_once(
    private_router: Router,
    open_private_connection: OpenConnection,
    readers_of: ReadersFactory,
    teardown: flow_teardown.TeardownAction,
    protocol: int,
    version: int,
) -> None:
    """A flow is a miss for every reader immediately after its teardown."""
    conn = open_private_connection(protocol, version)
    flow = conn.wait_offloaded()
    readers = readers_of(flow)
    teardown(conn, private_router)
    readers.assert_miss(flow)


@pytest.mark.clause("SN-6.5")
def test_flow_direction_with_stale_route_is_miss_at_once(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    readers_of: ReadersFactory,
) -> None:
    """The direction with a stale route is a miss at once; the other one is served until GC runs.

    IPv6 invalidates only the routes that a change affects; IPv4 invalidates all.
    """
    conn = open_private_connection(IPPROTO_UDP, 6)
    flow = conn.wait_offloaded()
    readers = readers_of(flow)
    flow_teardown.stale_route(conn, private_router)
    original, reply = _lookup_directions(private_flowmap, flow)
    assert original is None
    # The table forwards replies until garbage collection checks both directions.
    assert reply == 1 or _no_longer_offloaded(conn)
    wait_for("the flow table to stop serving the flow", lambda: _no_longer_offloaded(conn))
    readers.assert_miss(flow)


def mtu_change(router: Router) -> None:
    """ip link set r1 mtu 1400."""
    netlink.transact(
        netlink.NETLINK_ROUTE, [rtnetlink.set_mtu(router.wan.ifindex, 1400)], router.namespace
    )


def neighbour_change(router: Router) -> None:
    """ip neigh replace: give the server another neighbour entry."""
    host = router.server.addresses[4]
    moved = rtnetlink.add_permanent_neigh(router.wan.ifindex, host, router.server.mac)
    netlink.transact(netlink.NETLINK_ROUTE, [moved], router.namespace)


def flowtable_device_removal(router: Router) -> None:
    """nft delete flowtable ... devices: remove the table's hook on r1."""
    nftables.run("delete flowtable inet fw ft { devices = { r1 }; }", router.namespace)


def table_flush(router: Router) -> None:
    """nft flush table: delete the rules; the flow table stays and serves its flows."""
    nftables.run("flush table inet fw", router.namespace)


def address_change(router: Router) -> None:
    """ip addr add: invalidate every cached route."""
    netlink.transact(
        netlink.NETLINK_ROUTE,
        [rtnetlink.add_address(router.wan.ifindex, "198.51.100.99", 32)],
        router.namespace,
    )


@pytest.mark.clause("SN-6.1", "SN-6.5", "FM-12.1")
@pytest.mark.parametrize(
    "change",
    [mtu_change, neighbour_change, flowtable_device_removal, table_flush, address_change],
    ids=lambda change: change.__name__,
)
def test_map_after_config_change_follows_source_table(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    change: Callable[[Router], None],
) -> None:
    """After a configuration change the map has the flow only while the source table serves it.

    Whether the change ends the flow is decided by the source table, not by the test.
    """
    conn = open_private_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    change(private_router)
    for _ in range(3):
        offloaded = not _no_longer_offloaded(conn)
        found = [bpf.lookup_or_none(private_flowmap, key) is not None for key in flow.keys]
        # A table tears down a flow with a stale route at its next packet; the map misses before.
        assert offloaded or found == [False, False]
        conn.exchange()

    def found_again() -> bool:
        conn.exchange()
        return _lookup_directions(private_flowmap, flow) == [0, 1]

    # IPS_OFFLOAD is no criterion: GC of the stale flow may clear it (docs/findings.md).
    wait_for("the flow to be found again or still", found_again)


@pytest.mark.clause("SN-6.2")
def test_tcp_connection_reopened_on_same_ports_is_new_flow(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """A TCP connection reopened on the same ports is one new flow; the old entry is removed."""
    first = open_private_connection(IPPROTO_TCP, 4, client_port=20000)
    before = first.wait_offloaded()
    first.client_rst()
    first.server.close()
    # The SYN tears down the flow that the RST marked as closing.
    after = open_private_connection(IPPROTO_TCP, 4, client_port=20000).wait_offloaded()
    assert bytes(after.original) == bytes(before.original)
    assert _lookup_directions(private_flowmap, after) == [0, 1]
    assert len(conntrack.offloaded_entries(private_router.namespace)) == 1
    assert len(list(bpf.iterate_keys(private_flowmap))) == 2


@pytest.mark.clause("SN-6.4")
def test_flow_offloaded_again_after_flush_is_found(
    private_router: Router, open_private_connection: OpenConnection, readers_of: ReadersFactory
) -> None:
    """A connection that is offloaded again after a flush is found again by every reader."""
    conn = open_private_connection(IPPROTO_UDP, 4)
    for _ in range(3):
        flow = conn.wait_offloaded()
        readers = readers_of(flow)
        conntrack.flush(private_router.namespace)
        readers.assert_miss(flow)


@pytest.mark.clause("SN-6.4")
def test_flow_delete_leaves_other_flows(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """Deleting one flow leaves the others in the map."""
    conns = [
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + number) for number in range(4)
    ]
    flows = [conn.wait_offloaded() for conn in conns]
    for deleted in range(4):
        conntrack.delete(conns[deleted].tuple, private_router.namespace)
        found = [bpf.lookup_or_none(private_flowmap, flow.original) is not None for flow in flows]
        assert found == [number > deleted for number in range(4)]
