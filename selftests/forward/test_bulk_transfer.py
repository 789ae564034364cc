# SPDX-License-Identifier: GPL-2.0-only
"""Bulk TCP transfers forwarded by XDP: over lossy links and across reconfiguration."""

import random
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netns, nftables, tc
from fixtures.guest.pytest_plugin.plugin_api import Connect, describe
from fixtures.guest.runtime.hypothesis_support import affordable, effort
from fixtures.guest.topology.client_router_server import TABLE, Plan, Router, ruleset
from fixtures.guest.traffic.bulk_transfer import Transfer
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

_MIB = 1 << 20

NETEM = {
    "loss": "loss 1%",
    "reorder": "delay 2ms reorder 25% 50%",
    "duplicate": "duplicate 2%",
    "all": "delay 1ms loss 0.5% reorder 10% 50% duplicate 1%",
}


@pytest.mark.clause("FM-3", "FM-4", "FM-10")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("netem", NETEM)
@pytest.mark.parametrize("router", [Plan(), Plan(nat="snat+dnat")], ids=describe, indirect=True)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_transfer_over_a_bad_wire_arrives_whole(
    router: Router,
    flowmap: int,
    connection: Connect,
    cleanup: ExitStack,
    netem: str,
    version: int,
) -> None:
    """A TCP transfer forwarded by XDP arrives intact despite loss, reordering and duplicates."""
    forwarder = Forwarder(router, flowmap, cleanup)
    conn = connection(TCP_PROTOCOL, version)
    _check_transfer(conn, forwarder, netem, 2 * _MIB * effort())


@pytest.mark.clause("FM-3", "FM-4", "FM-10")
@pytest.mark.deadline(300)
def test_long_transfer_over_a_bad_wire_arrives_whole(
    router: Router, flowmap: int, connection: Connect, cleanup: ExitStack
) -> None:
    """100 MB (less on kernels slower than plain emulation) over a lossy link arrive intact."""
    forwarder = Forwarder(router, flowmap, cleanup)
    _check_transfer(connection(TCP_PROTOCOL, 4), forwarder, "all", affordable(100) * 1_000_000)


def _check_transfer(conn: Connection, forwarder: Forwarder, netem: str, size: int) -> None:
    """Send ``size`` bytes through netem; check that they arrive intact and through XDP."""
    conn.offloaded()
    for host in (conn.router.client, conn.router.server):
        tc.run(f"qdisc add dev {host.device} root netem {NETEM[netem]}", host.namespace)
    before = forwarder.fates()
    assert Transfer(conn, size, seed=size).arrives()
    counted = forwarder.fates() - before
    # XDP forwards nearly all of it and passes only few packets to the stack.
    assert counted[Fate.FORWARDED] > size // 1500
    assert counted[Fate.NO_FLOW] < counted[Fate.FORWARDED] // 10
    assert counted[Fate.MALFORMED] == counted[Fate.BAD_FLAGS] == 0


@pytest.mark.clause("FM-3", "FM-10")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_driver_forwards_a_transfer(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    cleanup: ExitStack,
    version: int,
) -> None:
    """A TCP transfer forwarded by native XDP arrives intact."""
    forwarder = Forwarder(own_router, own_flowmap, cleanup, native=True)
    conn = own_connection(TCP_PROTOCOL, version)
    conn.offloaded()
    before = forwarder.fates()
    size = 1 << 20
    assert Transfer(conn, size, seed=version).arrives()
    counted = forwarder.fates() - before
    assert counted[Fate.FORWARDED] > size // 1500
    assert counted[Fate.OUT_OF_WINDOW] == counted[Fate.MALFORMED] == 0


def _reload_ruleset(router: Router, _forwarder: Forwarder) -> None:
    """Delete and load the router's table ``inet fw`` in one transaction."""
    nftables.run(f"delete table inet {TABLE}\n{ruleset(router.plan)}", router.namespace)


def _flush_conntrack(router: Router, _forwarder: Forwarder) -> None:
    """Delete all conntrack entries, and so end all flows."""
    conntrack.flush(router.namespace)


def _delete_nft_table(router: Router, _forwarder: Forwarder) -> None:
    """Delete the nft table with the flowtable."""
    flowtable.drop_table(TABLE, router.namespace)


def _replace_xdp_program(_router: Router, forwarder: Forwarder) -> None:
    """Attach a fresh copy of the XDP program over the running one."""
    forwarder.replace()


@pytest.mark.clause("FM-9", "SN-5", "SN-6")
@pytest.mark.deadline(60)
@pytest.mark.parametrize(
    "change",
    [_reload_ruleset, _flush_conntrack, _delete_nft_table, _replace_xdp_program],
    ids=["ruleset-reload", "conntrack-flush", "table-delete", "xdp-replace"],
)
def test_change_in_the_midst_of_a_transfer_loses_nothing(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    cleanup: ExitStack,
    change: Callable[[Router, Forwarder], None],
) -> None:
    """A transfer during which rules, conntrack or the XDP program change arrives intact.

    Afterwards XDP forwards the connection again, except without the flowtable.
    """
    forwarder = Forwarder(own_router, own_flowmap, cleanup)
    conn = own_connection(TCP_PROTOCOL, 4)
    conn.offloaded()
    before = forwarder.fates()

    def reconfigure_midway() -> None:
        assert (forwarder.fates() - before)[Fate.FORWARDED]
        change(own_router, forwarder)

    assert Transfer(conn, 2 * _MIB, seed=1).arrives(reconfigure_midway)
    if change is _delete_nft_table:
        return

    def forwarded_again() -> bool:
        before = forwarder.fates()
        conn.exchange()
        return (forwarder.fates() - before)[Fate.FORWARDED] >= 2

    wait_for("XDP to forward the connection again", forwarded_again)


@pytest.mark.clause("FM-10", "SN-6")
@pytest.mark.parametrize(
    ("protocol", "timeout"), [(TCP_PROTOCOL, "tcp"), (UDP_PROTOCOL, "udp")], ids=["tcp", "udp"]
)
def test_connection_outlives_its_flows(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    cleanup: ExitStack,
    protocol: int,
    timeout: str,
) -> None:
    """After the flow timeout the stack forwards the idle connection, and later XDP again."""
    forwarder = Forwarder(own_router, own_flowmap, cleanup)
    conn = own_connection(protocol, 4)
    for _ in range(2):
        conn.offloaded()
        netns.set_sysctls(own_router.namespace, {f"netfilter/nf_flowtable_{timeout}_timeout": 1})
        conn.exchange()
        # Forwarding sets the flow's expiry, so it is now at most one second away.
        wait_for(
            "the flow to expire and conntrack to clear IPS_OFFLOAD",
            lambda: (e := conn.entry()) and not e.offloaded,
            10,
        )
        before = forwarder.fates()
        conn.exchange()
        assert (forwarder.fates() - before)[Fate.NO_FLOW]
        netns.set_sysctls(own_router.namespace, {f"netfilter/nf_flowtable_{timeout}_timeout": 30})
    conn.offloaded()
    before = forwarder.fates()
    conn.exchange()
    assert (forwarder.fates() - before)[Fate.FORWARDED] >= 2


@pytest.mark.clause("FM-4", "FM-5", "SN-6", "RT-3")
@pytest.mark.campaign
@pytest.mark.deadline(60)
def test_soak(
    own_router: Router, own_flowmap: int, own_connection: Connect, cleanup: ExitStack
) -> None:
    """Connections that come, transfer and end in random ways lose no data."""
    forwarder = Forwarder(own_router, own_flowmap, cleanup)
    tcp_ends = [Connection.finish, Connection.reset, Connection.server_reset]
    rounds = 6 * effort()
    for number in range(rounds):
        version = random.choice((4, 6))
        conn = own_connection(TCP_PROTOCOL, version, server_port=7100 + number)
        conn.offloaded()
        assert Transfer(conn, _MIB // 4, seed=number).arrives()
        other = own_connection(UDP_PROTOCOL, version, server_port=7100 + number)
        other.offloaded()
        other.exchange()
        random.choice(tcp_ends)(conn)
        conntrack.delete(other.tuple, own_router.namespace)
        other.client.shutdown(socket.SHUT_RDWR)
    counted = forwarder.fates()
    print({fate.name: count for fate, count in counted.items()})
    assert counted[Fate.FORWARDED] > rounds * _MIB // 4 // 1500
    assert counted[Fate.OUT_OF_WINDOW] == counted[Fate.MALFORMED] == counted[Fate.BAD_FLAGS] == 0
