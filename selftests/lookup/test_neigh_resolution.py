# SPDX-License-Identifier: GPL-2.0-only
"""MAC addresses of a value in each state of a neighbour, set or reached by real resolution."""

import pytest
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_GETNEIGH, RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import netlink, netns, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Interface, Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

# linux/neighbour.h
NUD = {
    "incomplete": 0x01,
    "reachable": 0x02,
    "stale": 0x04,
    "delay": 0x08,
    "probe": 0x10,
    "failed": 0x20,
    "noarp": 0x40,
    "permanent": 0x80,
}
VALID = {"reachable", "stale", "delay", "probe", "noarp", "permanent"}
_ZERO = "00:00:00:00:00:00"

each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def _send(namespace: str, *messages: nlmsg) -> None:
    netlink.transact(netlink.NETLINK_ROUTE, messages, namespace)


def _state(port: Interface, host: str) -> str | None:
    """Return the NUD state of a neighbour by name; None if there is no entry."""
    family = rtnetlink.address_family(host)
    request = netlink.build_message(ndmsg, RTM_GETNEIGH, family=family)
    for found in netlink.dump(netlink.NETLINK_ROUTE, request, port.namespace):
        attributes = netlink.attributes(found)
        if found["ifindex"] == port.ifindex and attributes.get("NDA_DST") == host:
            return next(name for name, number in NUD.items() if number == found["state"])
    return None


def _set_state(port: Interface, host: str, mac: str, state: str) -> nlmsg:
    """Build the message that sets a neighbour's state; an invalid one needs the address again."""
    return netlink.build_message(
        ndmsg,
        RTM_NEWNEIGH,
        netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE,
        [("NDA_DST", host), ("NDA_LLADDR", mac)],
        family=rtnetlink.address_family(host),
        ifindex=port.ifindex,
        state=NUD[state],
    )


@pytest.mark.clause("FM-3.13", "FM-3.14")
@each_version
@pytest.mark.parametrize("direction", [0, 1], ids=["original", "reply"])
def test_value_has_mac_in_each_valid_neighbour_state(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    direction: int,
    version: int,
) -> None:
    """The addresses are there in each valid state, and zero in each other one, from any other.

    The states follow each other in several orders.  A program and bpf(2) see the same.
    """
    keys = [
        open_private_connection(protocol, version).wait_offloaded().keys[direction]
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
    ]
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_tc"), "by_tc")
    port, peer = (
        (private_router.wan, private_router.server),
        (private_router.lan, private_router.client),
    )[direction]
    host = peer.addresses[version]
    order = list(NUD)
    for distance in (1, 3, 5, 7):
        for step in range(len(order)):
            state = order[step * distance % len(order)]
            _send(
                private_router.namespace, rtnetlink.set_neigh_state(port.ifindex, host, NUD[state])
            )
            expected = (port.mac, peer.mac) if state in VALID else (_ZERO, _ZERO)
            seen_by_all = [bpf.lookup(private_flowmap, key) for key in keys]
            for value in (*seen_by_all, *map(probe.lookup, keys)):
                assert value is not None
                seen = uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)
                assert seen == expected, f"{state}, distance {distance}"


@pytest.mark.clause("FM-3.13", "FM-3.14")
@each_version
def test_value_has_mac_of_neighbour_that_the_kernel_resolved(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """Without permanent entries the router resolves its neighbours, and the value follows.

    The states are those of real traffic: reachable after the answer, delay after a packet to a
    stale neighbour, and zero addresses after the deletion until a packet resolves it again.
    """
    router = private_router
    ports = ((router.wan, router.server), (router.lan, router.client))
    for port, peer in ports:
        _send(router.namespace, rtnetlink.delete_neigh(port.ifindex, peer.addresses[version]))
    conn = open_private_connection(IPPROTO_UDP, version)
    flow = conn.wait_offloaded()

    def macs(direction: int) -> tuple[str, str]:
        value = bpf.lookup(private_flowmap, flow.keys[direction])
        return uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)

    for direction, (port, peer) in enumerate(ports):
        host, valid = peer.addresses[version], (port.mac, peer.mac)
        assert _state(port, host) in VALID - {"permanent", "noarp"}
        assert macs(direction) == valid, "after resolution"

        _send(router.namespace, rtnetlink.set_neigh_state(port.ifindex, host, NUD["stale"]))
        assert macs(direction) == valid, "stale"
        # A lookup does not probe; a packet does.
        assert _state(port, host) == "stale"
        conn.exchange()
        assert _state(port, host) in ("delay", "probe", "reachable")
        assert macs(direction) == valid, "after a packet to a stale neighbour"

        _send(router.namespace, rtnetlink.delete_neigh(port.ifindex, host))
        assert macs(direction) == (_ZERO, _ZERO), "deleted"
        assert _state(port, host) in (None, "failed")
        conn.exchange()
        assert _state(port, host) in VALID - {"permanent", "noarp"}
        assert macs(direction) == valid, "resolved again"


@pytest.mark.clause("FM-3.14")
@each_version
def test_value_has_no_mac_after_resolution_failed(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """While nothing answers, the neighbour is incomplete and then failed: zero addresses."""
    router = private_router
    family = "ipv4" if version == 4 else "ipv6"
    netns.set_sysctls(
        router.namespace,
        {
            f"{family}/neigh/{router.wan.device}/{name}": value
            for name, value in (("mcast_solicit", 1), ("retrans_time_ms", 100))
        },
    )
    conn = open_private_connection(IPPROTO_UDP, version)
    flow = conn.wait_offloaded()
    host = router.server.addresses[version]
    assert bytes(bpf.lookup(private_flowmap, flow.original).h_dest) != bytes(6)
    # The server's device does not answer, but the router's stays up.
    _send(
        router.server.namespace,
        rtnetlink.delete_address(router.server.ifindex, host, {4: 24, 6: 64}[version]),
    )
    _send(router.namespace, rtnetlink.delete_neigh(router.wan.ifindex, host))
    conn.client.send(b"not answered")
    wait_for("the resolution to fail", lambda: _state(router.wan, host) == "failed")
    value = bpf.lookup_or_none(private_flowmap, flow.original)
    assert value is not None
    assert bytes(value.h_dest) + bytes(value.h_source) == bytes(12)
    # The reply direction has another neighbour.
    reply = bpf.lookup(private_flowmap, flow.reply)
    assert uapi.format_mac(reply.h_dest) == router.client.mac
