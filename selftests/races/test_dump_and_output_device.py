# SPDX-License-Identifier: GPL-2.0-only
"""Two more actors against the others: dumps of flow tables, and a flow's output device that goes.

Each test races one of them against many actors, one after the other, on the same router.
"""

import socket
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import polling
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.race import python_race
from fixtures.guest.topology.client_router_server import FLOWTABLE, NFT_TABLE, Router
from fixtures.guest.topology.settled_links import wait_links_up
from fixtures.guest.traffic.connections import IPPROTO_UDP
from selftests.races.actors import ACTORS, RaceContext, allowed_outcomes

ROUNDS = 3
MIN_OVERLAPS = 2
UDP_TIMEOUT = "netfilter/nf_flowtable_udp_timeout"

AGAINST_DUMP = (
    "source_delete",
    "snoop_create_delete",
    "device_unregister",
    "namespace_exit",
    "map_create_free",
    "flow_add",
    "expiry",
)
"""Actors that change what a dump shows: tables, devices, and the counts of a snoop table."""
AGAINST_OUTPUT_DEVICE = (
    "flow_add",
    "teardown",
    "expiry",
    "flush",
    "source_delete",
    "snoop_create_delete",
    "map_create_free",
    "lookup",
    "walk",
    "device_unregister",
)
"""Actors that use the flow or its route while the device goes."""

_SNOOP_TABLE = "watched"
_DEVICE, _PEER = "race-out", "race-far"
_IFINDEX, _PEER_IFINDEX = 190, 191
_MAC, _PEER_MAC = "02:00:00:00:00:a0", "02:00:00:00:00:a1"
_ADDRESS, _PEER_ADDRESS = "203.0.113.1", "203.0.113.2"
_CLIENT_ADDRESS = "192.0.2.9"
"""The client's second address; the server has a route back to it over the device."""
_PORT = 7900


@pytest.fixture
def race_context(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> RaceContext:
    """Two mirrored connections, and a map that they are in."""
    conns = [
        open_private_connection(IPPROTO_UDP, 4, server_port=7000 + index) for index in range(2)
    ]
    flows = [conn.wait_offloaded() for conn in conns]
    return RaceContext(private_router, conns, flows, private_flowmap, None)


def _dump(context: RaceContext) -> python_race.Actor:
    """List the flow tables, and read one with the counts of its flows."""

    def act(_: int) -> None:
        for _attempt in range(10):
            tables = flowtable.list_flowtables(context.namespace)
            # A transaction that ends during the dump may hide the table, or show it twice.
            assert {table.name for table in tables if table.table == NFT_TABLE} <= {FLOWTABLE}
            entries, missed = flowtable.snoop_counters(_SNOOP_TABLE, "all", context.namespace)
            assert 0 <= entries <= 1000
            assert missed == 0

    return act


def _add_client_address(router: Router) -> None:
    """Give the client the address of connections over the further device."""
    add = rtnetlink.add_address(router.client.ifindex, _CLIENT_ADDRESS, 24)
    netlink.transact(netlink.NETLINK_ROUTE, [add], router.client.namespace)
    neigh = rtnetlink.add_permanent_neigh(router.lan.ifindex, _CLIENT_ADDRESS, router.client.mac)
    netlink.transact(netlink.NETLINK_ROUTE, [neigh], router.namespace)


def _add_output_device(router: Router, own: ExitStack) -> None:
    """Connect router and server by a device of the flowtable, which is deleted at the end."""
    far = router.server.namespace
    on_router = [
        rtnetlink.add_veth(_DEVICE, _IFINDEX, _MAC, _PEER, _PEER_IFINDEX, _PEER_MAC, far),
        rtnetlink.set_up(_IFINDEX),
        rtnetlink.add_address(_IFINDEX, _ADDRESS, 24),
        rtnetlink.add_permanent_neigh(_IFINDEX, _PEER_ADDRESS, _PEER_MAC),
    ]
    netlink.transact(netlink.NETLINK_ROUTE, on_router, router.namespace)
    delete = [rtnetlink.delete_link(_IFINDEX)]
    own.callback(netlink.transact, netlink.NETLINK_ROUTE, delete, router.namespace)
    on_server = [
        rtnetlink.set_up(_PEER_IFINDEX),
        rtnetlink.add_address(_PEER_IFINDEX, _PEER_ADDRESS, 24),
        rtnetlink.add_permanent_neigh(_PEER_IFINDEX, _ADDRESS, _MAC),
        rtnetlink.add_route(_CLIENT_ADDRESS, 32, _ADDRESS),
    ]
    netlink.transact(netlink.NETLINK_ROUTE, on_server, far)
    for namespace, index in ((router.namespace, _IFINDEX), (far, _PEER_IFINDEX)):
        wait_links_up(namespace, index)  # until then it drops packets
    # Without the device the flowtable would not take the flow.
    with_device = flowtable.new_flowtable(
        flowtable.INET, NFT_TABLE, FLOWTABLE, devices=(_DEVICE,), exclusive=False
    )
    flowtable.commit_batch([with_device], router.namespace)


def _offload_over_output_device(router: Router, own: ExitStack) -> None:
    """Exchange datagrams whose output device is one of its own."""
    timeout = 5.0 * polling.deadline_scale()
    _add_output_device(router, own)
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    server = own.enter_context(netns.open_socket(router.server.namespace, *kind))
    client = own.enter_context(netns.open_socket(router.client.namespace, *kind))
    for end in (server, client):
        end.settimeout(timeout)
    server.bind((_PEER_ADDRESS, _PORT))
    client.bind((_CLIENT_ADDRESS, 0))
    client.connect((_PEER_ADDRESS, _PORT))
    for _packet in range(3):
        client.send(b"ping")
        server.sendto(b"pong", server.recvfrom(16)[1])
        assert client.recv(len(b"pong")) == b"pong"


def _output_device_unregister(context: RaceContext) -> python_race.Actor:
    """Offload a flow whose output device is a device of its own, and unregister that."""

    def act(_: int) -> None:
        with ExitStack() as own:
            _offload_over_output_device(context.router, own)

    return act


def _race(context: RaceContext, name: str, actor: python_race.Actor, other: str) -> None:
    """Race an actor against one of the contract's, and require allowed outcomes."""
    with ExitStack() as race_duration:
        if other == "expiry":
            before = netns.get_sysctl(context.namespace, UDP_TIMEOUT)
            race_duration.callback(netns.set_sysctls, context.namespace, {UDP_TIMEOUT: before})
            netns.set_sysctls(context.namespace, {UDP_TIMEOUT: 0})
        report = python_race.run_until_overlap(
            {name: actor, other: ACTORS[other](context, 0)}, ROUNDS, overlaps=MIN_OVERLAPS
        )
    report.require_outcomes({name: {"ok"}, other: allowed_outcomes(other, ())}, overlap=None)


def _assert_mirroring_works(context: RaceContext) -> None:
    """Check that flows are offloaded, mirrored and removed after the races as before them."""
    conntrack.flush(context.namespace)
    for conn in context.connections:
        flow = conn.wait_offloaded()
        assert [bpf.lookup(context.fd, key).dir for key in flow.keys] == [0, 1]
    conntrack.flush(context.namespace)
    wait_for("the map to be empty", lambda: bpf.flowmap_entry_count(context.fd) == 0)
    assert list(bpf.iterate_keys(context.fd)) == []


@pytest.mark.clause("RT-1.1", "RT-3.1", "SN-1.5")
@pytest.mark.soak
@pytest.mark.deadline(120)
def test_flowtable_dump_vs_each_actor(race_context: RaceContext) -> None:
    """Dumps of flow tables while tables, devices and flows change end, with valid counts."""
    flowtable.create_snoop_table(_SNOOP_TABLE, "all", race_context.namespace)
    for other in AGAINST_DUMP:
        print(other)
        _race(race_context, "dump", _dump(race_context), other)
    _assert_mirroring_works(race_context)
    wait_for(
        "the snoop table to be empty",
        lambda: flowtable.snoop_counters(_SNOOP_TABLE, "all", race_context.namespace) == (0, 0),
    )


@pytest.mark.clause("RT-1.1", "RT-3.1", "SN-8.2")
@pytest.mark.soak
@pytest.mark.deadline(120)
def test_output_device_of_flow_unregistered_vs_each_actor(race_context: RaceContext) -> None:
    """A flow's output device is unregistered in time, whatever else happens to flows and maps.

    An entry that kept a route would keep the device, and its unregistration would wait for it.
    """
    _add_client_address(race_context.router)
    with ExitStack() as own:
        _offload_over_output_device(race_context.router, own)
        values = [bpf.lookup(race_context.fd, key) for key in bpf.iterate_keys(race_context.fd)]
        assert [value.dir for value in values if value.oifindex == _IFINDEX] == [0]
    for other in AGAINST_OUTPUT_DEVICE:
        print(other)
        _race(race_context, "device", _output_device_unregister(race_context), other)
        assert _DEVICE not in rtnetlink.link_names(race_context.namespace)
    _assert_mirroring_works(race_context)
    assert modules.loaded(modules.FLOWMAP_MODULE)
