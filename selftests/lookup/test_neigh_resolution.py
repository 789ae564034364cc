# SPDX-License-Identifier: GPL-2.0-only
"""MAC addresses of a value in each state of a neighbour, set or reached by real resolution."""

import socket

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
    "none": 0x00,
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
_RESOLVED = VALID - {"noarp", "permanent"}
_PREFIX = {4: 24, 6: 64}
_FAMILY = {4: "ipv4", 6: "ipv6"}
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
    """Build the message that sets a neighbour's state; an invalid one needs the MAC address."""
    return netlink.build_message(
        ndmsg,
        RTM_NEWNEIGH,
        netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE,
        [("NDA_DST", host), ("NDA_LLADDR", mac)],
        family=rtnetlink.address_family(host),
        ifindex=port.ifindex,
        state=NUD[state],
    )


def _send_from_router(port: Interface, host: str) -> None:
    """Send a packet of the router's own, which resolves the neighbour.

    A packet that the flowtable forwards does not: it goes to the neighbour's MAC address as it is,
    in whatever state (``nf_flow_queue_xmit4()``; docs/findings.md).
    """
    family = rtnetlink.address_family(host)
    with netns.open_socket(port.namespace, family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"resolve", (host, 9))


def _silence(peer: Interface, version: int) -> None:
    """Take a host's address away: it answers no ARP request and no neighbour solicitation."""
    host = peer.addresses[version]
    _send(peer.namespace, rtnetlink.delete_address(peer.ifindex, host, _PREFIX[version]))


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
    # An answer to the router's probes would change the state; so would the last probe.
    _silence(peer, version)
    probes = f"{_FAMILY[version]}/neigh/{port.device}/ucast_solicit"
    netns.set_sysctls(private_router.namespace, {probes: 1000})
    order = list(NUD)
    # Each distance has no common factor with the number of states, so each state is set.
    for distance in (1, 2, 5, 7):
        for step in range(len(order)):
            state = order[step * distance % len(order)]
            _send(private_router.namespace, _set_state(port, host, peer.mac, state))
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
    conn = open_private_connection(IPPROTO_UDP, version)
    flow = conn.wait_offloaded()

    def macs(direction: int) -> tuple[str, str]:
        value = bpf.lookup(private_flowmap, flow.keys[direction])
        return uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)

    ports = ((router.wan, router.server), (router.lan, router.client))
    for direction, (port, peer) in enumerate(ports):
        host, valid = peer.addresses[version], (port.mac, peer.mac)
        for time in ("first", "second"):
            _send(router.namespace, rtnetlink.delete_neigh(port.ifindex, host))
            assert _state(port, host) in (None, "failed")
            assert macs(direction) == (_ZERO, _ZERO), f"after the {time} deletion"

            _send_from_router(port, host)
            wait_for("the resolution", lambda: _state(port, host) in _RESOLVED)  # noqa: B023
            assert macs(direction) == valid, f"after the {time} resolution"

            _send(router.namespace, rtnetlink.set_neigh_state(port.ifindex, host, NUD["stale"]))
            assert macs(direction) == valid, "stale"
            # A lookup does not probe; a packet does.
            assert _state(port, host) == "stale"
            _send_from_router(port, host)
            assert _state(port, host) in _RESOLVED - {"stale"}
            assert macs(direction) == valid, "after a packet to a stale neighbour"
    # With what was resolved packets of the flow arrive.
    conn.exchange()


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
    settings = {"mcast_solicit": 1, "retrans_time_ms": 100}
    netns.set_sysctls(
        router.namespace,
        {
            f"{_FAMILY[version]}/neigh/{router.wan.device}/{name}": value
            for name, value in settings.items()
        },
    )
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    host = router.server.addresses[version]

    def macs() -> bytes:
        value = bpf.lookup(private_flowmap, flow.original)
        return bytes(value.h_source) + bytes(value.h_dest)

    assert macs() != bytes(12)
    _silence(router.server, version)
    _send(router.namespace, rtnetlink.delete_neigh(router.wan.ifindex, host))
    assert macs() == bytes(12), "deleted"
    _send_from_router(router.wan, host)
    assert macs() == bytes(12), "not resolved yet"
    wait_for("the resolution to fail", lambda: _state(router.wan, host) == "failed")
    assert macs() == bytes(12), "failed"
    # The reply direction has another neighbour.
    reply = bpf.lookup(private_flowmap, flow.reply)
    assert uapi.format_mac(reply.h_dest) == router.client.mac
