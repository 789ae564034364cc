# SPDX-License-Identifier: GPL-2.0-only
"""Each way in which a flow ends, for flows of each kind at once: see `flow_kinds`."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest
from pyroute2.netlink import nlmsg

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection
from selftests.snoop import flow_kinds
from selftests.snoop.flow_kinds import AllReaders, NamedFlow

Readers = Callable[[list[NamedFlow]], AllReaders]
End = Callable[[Router], None]

_NO_CONNECTION: Connection = None  # type: ignore[assignment]  # for actions that use none


@pytest.fixture
def readers(
    private_router: Router, private_flowmap: int, make_flowmap: MakeFlowmap, load_bpf: LoadBpf
) -> Readers:
    """Check that every reader finds flows, and return the readers.

    One map mirrored the flows when they were added, the other in its first walk.  The program's
    map is passive, so that it does not prolong the flows.
    """
    passive = make_flowmap(private_router.namespace, map_extra=1)
    probe = LookupProbe(load_bpf("lookup_probe", passive, "by_tc"), "by_tc")

    def checked(flows: list[NamedFlow]) -> AllReaders:
        later = make_flowmap(private_router.namespace)
        found = AllReaders((private_flowmap, later, passive), probe)
        found.assert_exactly(flows)
        return found

    return checked


def _rtnetlink(*messages: nlmsg) -> End:
    return lambda router: netlink.transact(netlink.NETLINK_ROUTE, messages, router.namespace)


def _links(make: Callable[[int], nlmsg], *devices: str) -> End:
    def end(router: Router) -> None:
        for device in devices:
            _rtnetlink(make(getattr(router, device).ifindex))(router)

    return end


def _nft(command: str) -> End:
    def end(router: Router) -> None:
        nftables.run(command, router.namespace)

    return end


def _reload(router: Router) -> None:
    text = client_router_server.ruleset(router.config)
    nftables.run("delete table inet fw\n" + text, router.namespace)


ENDS: dict[str, End] = {
    "conntrack-flush": lambda router: conntrack.flush(router.namespace),
    "lan-down": _links(rtnetlink.set_down, "lan"),
    "wan-down": _links(rtnetlink.set_down, "wan"),
    "lan-deleted": _links(rtnetlink.delete_link, "lan"),
    "wan-deleted": _links(rtnetlink.delete_link, "wan"),
    "both-deleted": _links(rtnetlink.delete_link, "wan", "lan"),
    "wan-moved": lambda router: flow_teardown.wan_move_netns(_NO_CONNECTION, router),
    "flowtable-deleted": _nft("delete chain inet fw forward; delete flowtable inet fw ft"),
    "table-deleted": lambda router: flowtable.drop_table("fw", router.namespace),
    "ruleset-flushed": _nft("flush ruleset"),
    "ruleset-reloaded": _reload,
}


@pytest.mark.clause("SN-6.1", "SN-6.4", "SN-6.6", "SN-6.7", "SN-6.9")
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_flows_of_each_kind_miss_at_once_after_common_end(
    private_router: Router, readers: Readers, cleanup: ExitStack, end: End
) -> None:
    """What ends all flows makes those of each kind miss at once, and their entries are freed."""
    flows = flow_kinds.offload_all(private_router, cleanup)
    found_by = readers(flows)
    end(private_router)
    found_by.assert_exactly([], gone=flows)
    found_by.wait_freed()


@pytest.mark.clause("SN-6.1", "SN-6.4")
def test_flows_of_each_kind_miss_one_by_one_after_conntrack_delete(
    private_router: Router, readers: Readers, cleanup: ExitStack
) -> None:
    """Each deleted connection is a miss at once; the flows of all other kinds stay."""
    flows = flow_kinds.offload_all(private_router, cleanup)
    found_by = readers(flows)
    left = list(flows)
    for flow in flows:
        flow_kinds.conntrack_delete_one(flow, private_router.namespace)
        left.remove(flow)
        found_by.assert_exactly(left, gone=[flow])
    found_by.wait_freed()


TCP_ENDS: dict[str, Callable[[Connection], None]] = {
    "client-fin": Connection.client_fin,
    "server-fin": lambda conn: conn.server.close(),
    "client-rst": Connection.client_rst,
    "server-rst": Connection.server_rst,
}


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("SN-6.2")
@pytest.mark.parametrize("end", TCP_ENDS.values(), ids=TCP_ENDS)
def test_tcp_flows_of_each_kind_miss_when_no_longer_served_after_close(
    private_router: Router,
    readers: Readers,
    cleanup: ExitStack,
    end: Callable[[Connection], None],
) -> None:
    """After FIN or RST the flows are found while they are served, and a miss afterwards.

    The UDP flows, which no FIN ends, are still found.
    """
    flows = flow_kinds.offload_all(private_router, cleanup)
    found_by = readers(flows)
    closing = [flow for flow in flows if flow.conn.tuple.protocol == IPPROTO_TCP]
    others = [flow for flow in flows if flow not in closing]
    for flow in closing:
        end(flow.conn)
    assert all(flow_kinds.serves(flow.conn) for flow in closing)
    found_by.assert_exactly(flows)
    for flow in others:
        flow.conn.exchange()

    for flow in closing:
        flow_kinds.conntrack_delete_one(flow, private_router.namespace)
    found_by.assert_exactly(others, gone=closing)
    found_by.wait_freed(len(others))


@pytest.mark.clause("SN-6.3")
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_flows_of_each_kind_miss_after_expiry(
    private_router: Router, readers: Readers, cleanup: ExitStack, protocol: int
) -> None:
    """Flows that expire are misses; those of the other protocol, with a longer timeout, stay."""
    flows = flow_kinds.offload_all(private_router, cleanup)
    found_by = readers(flows)
    name = "tcp" if protocol == IPPROTO_TCP else "udp"
    netns.set_sysctls(private_router.namespace, {f"netfilter/nf_flowtable_{name}_timeout": 1})
    idle = [flow for flow in flows if flow.conn.tuple.protocol == protocol]
    others = [flow for flow in flows if flow not in idle]
    for flow in idle:
        flow.conn.exchange()  # the flow takes the new timeout
    wait_for(
        "the flowtable to end the idle flows",
        lambda: not any(flow_kinds.serves(flow.conn) for flow in idle),
    )
    found_by.assert_exactly(others, gone=idle)
    found_by.wait_freed(len(others))


@pytest.mark.clause("SN-6.5")
@pytest.mark.parametrize("direction", [0, 1], ids=["original", "reply"])
def test_direction_of_each_kind_with_stale_route_is_miss_at_once(
    private_router: Router,
    private_flowmap: int,
    cleanup: ExitStack,
    direction: int,
) -> None:
    """A direction whose route became stale is a miss at once, for flows of each kind.

    IPv4 invalidates all routes, so the other direction is a miss too; with IPv6 it is found as
    long as its table serves it.
    """
    flows = flow_kinds.offload_all(private_router, cleanup)
    host = (private_router.server, private_router.client)[direction]
    routes = [
        rtnetlink.add_blackhole_route(host.addresses[version], {4: 32, 6: 128}[version])
        for version in (4, 6)
    ]
    netlink.transact(netlink.NETLINK_ROUTE, routes, private_router.namespace)
    readers = AllReaders((private_flowmap,))
    for flow in flows:
        served = flow_kinds.serves(flow.conn)
        found = [_direction(private_flowmap, flow, number) for number in (0, 1)]
        assert found[direction] is None, flow.name
        if "ipv4" in flow.name:
            assert found == [None, None], flow.name
        elif served and flow_kinds.serves(flow.conn):
            assert found[1 - direction] == 1 - direction, flow.name
    wait_for(
        "the flowtable to end the flows",
        lambda: not any(flow_kinds.serves(flow.conn) for flow in flows),
    )
    readers.assert_exactly([], gone=flows)
    readers.wait_freed()


def _direction(fd: int, flow: NamedFlow, number: int) -> int | None:
    value = bpf.lookup_or_none(fd, flow.keys[number])
    return None if value is None else int(value.dir)


@pytest.mark.clause("SN-6.8", "FM-2.3")
@pytest.mark.no_capture
def test_flows_of_each_kind_miss_after_netns_exit(make_flowmap: MakeFlowmap) -> None:
    """After the exit of the netns a map is empty, and misses the flows of each kind."""
    with ExitStack() as stack:
        config = RouterConfig(netns_prefix="exit")
        router = client_router_server.build_router(config, stack)
        fd = make_flowmap(router.namespace)
        with ExitStack() as sockets:
            flows = flow_kinds.offload_all(router, sockets)
            readers = AllReaders((fd,))
            readers.assert_exactly(flows)
            netns.remove(router.namespace)
            wait_for("the map to be empty", partial(_is_empty, fd))
            readers.assert_exactly([], gone=flows)
            readers.wait_freed()


def _is_empty(fd: int) -> bool:
    return not list(bpf.iterate_keys(fd))
