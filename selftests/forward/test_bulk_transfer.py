# SPDX-License-Identifier: GPL-2.0-only
"""Real transfers by the program: over wires that lose, and across changes in their midst."""

import random
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netns, nftables, tc
from fixtures.guest.pytest_plugin.fixtures import Connect, describe
from fixtures.guest.runtime.hypothesis_support import affordable, effort
from fixtures.guest.topology.client_router_server import TABLE, Plan, Router, ruleset
from fixtures.guest.traffic.bulk_transfer import Transfer
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Connection
from fixtures.guest.traffic.xdp_forwarder import Fate, Forwarder

_MIB = 1 << 20

WIRES = {
    "loss": "loss 1%",
    "reorder": "delay 2ms reorder 25% 50%",
    "duplicate": "duplicate 2%",
    "all": "delay 1ms loss 0.5% reorder 10% 50% duplicate 1%",
}


@pytest.mark.clause("FM-3", "FM-4", "FM-10")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("router", [Plan(), Plan(nat="snat+dnat")], ids=describe, indirect=True)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_transfer_over_a_bad_wire_arrives_whole(
    router: Router,
    flowmap: int,
    connection: Connect,
    cleanup: ExitStack,
    wire: str,
    version: int,
) -> None:
    forwarder = Forwarder(router, flowmap, cleanup)
    talk = connection(TCP_PROTOCOL, version)
    _transfer(talk, forwarder, wire, 2 * _MIB * effort())


@pytest.mark.clause("FM-3", "FM-4", "FM-10")
@pytest.mark.deadline(300)
def test_long_transfer_over_a_bad_wire_arrives_whole(
    router: Router, flowmap: int, connection: Connect, cleanup: ExitStack
) -> None:
    """100 MB; less where everything is slower still than under emulation."""
    forwarder = Forwarder(router, flowmap, cleanup)
    _transfer(connection(TCP_PROTOCOL, 4), forwarder, "all", affordable(100) * 1_000_000)


def _transfer(talk: Connection, forwarder: Forwarder, wire: str, size: int) -> None:
    """Send so many octets over such a wire; they arrive, and by the program."""
    talk.offloaded()
    for host in (talk.router.client, talk.router.server):
        tc.run(f"qdisc add dev {host.device} root netem {WIRES[wire]}", host.namespace)
    before = forwarder.fates()
    assert Transfer(talk, size, seed=size).arrives()
    counted = forwarder.fates() - before
    # Nearly all of it by the program: what it leaves to the stack are the odd ones.
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
    forwarder = Forwarder(own_router, own_flowmap, cleanup, native=True)
    talk = own_connection(TCP_PROTOCOL, version)
    talk.offloaded()
    before = forwarder.fates()
    size = 1 << 20
    assert Transfer(talk, size, seed=version).arrives()
    counted = forwarder.fates() - before
    assert counted[Fate.FORWARDED] > size // 1500
    assert counted[Fate.OUT_OF_WINDOW] == counted[Fate.MALFORMED] == 0


def _reload(router: Router, _forwarder: Forwarder) -> None:
    """The whole ruleset anew, in one transaction."""
    nftables.run(f"delete table inet {TABLE}\n{ruleset(router.plan)}", router.namespace)


def _flush(router: Router, _forwarder: Forwarder) -> None:
    conntrack.flush(router.namespace)


def _delete(router: Router, _forwarder: Forwarder) -> None:
    flowtable.drop_table(TABLE, router.namespace)


def _replace(_router: Router, forwarder: Forwarder) -> None:
    forwarder.replace()


@pytest.mark.clause("FM-9", "SN-5", "SN-6")
@pytest.mark.deadline(60)
@pytest.mark.parametrize("change", [_reload, _flush, _delete, _replace])
def test_change_in_the_midst_of_a_transfer_loses_nothing(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    cleanup: ExitStack,
    change: Callable[[Router, Forwarder], None],
) -> None:
    forwarder = Forwarder(own_router, own_flowmap, cleanup)
    talk = own_connection(TCP_PROTOCOL, 4)
    talk.offloaded()
    before = forwarder.fates()

    def midway() -> None:
        assert (forwarder.fates() - before)[Fate.FORWARDED]
        change(own_router, forwarder)

    assert Transfer(talk, 2 * _MIB, seed=1).arrives(midway)
    if change is _delete:
        return

    def served() -> bool:
        before = forwarder.fates()
        talk.exchange()
        return (forwarder.fates() - before)[Fate.FORWARDED] >= 2

    wait_for("the flow to be there again, or still, and the program to serve it", served)


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
    """Idle for longer than a flow lives, then again: by the stack at first, then forwarded."""
    forwarder = Forwarder(own_router, own_flowmap, cleanup)
    talk = own_connection(protocol, 4)
    for _ in range(2):
        talk.offloaded()
        netns.set_sysctls(own_router.namespace, {f"netfilter/nf_flowtable_{timeout}_timeout": 1})
        talk.exchange()
        # Its timeout is set by the packets that are served, so one more second it is.
        wait_for("the flow to expire", lambda: (e := talk.entry()) and not e.offloaded, 10)
        before = forwarder.fates()
        talk.exchange()
        assert (forwarder.fates() - before)[Fate.NO_FLOW]
        netns.set_sysctls(own_router.namespace, {f"netfilter/nf_flowtable_{timeout}_timeout": 30})
    talk.offloaded()
    before = forwarder.fates()
    talk.exchange()
    assert (forwarder.fates() - before)[Fate.FORWARDED] >= 2


@pytest.mark.clause("FM-4", "FM-5", "SN-6", "RT-3")
@pytest.mark.campaign
@pytest.mark.deadline(60)
def test_soak(
    own_router: Router, own_flowmap: int, own_connection: Connect, cleanup: ExitStack
) -> None:
    """Connections come, transfer, and go, each in its own way; nothing is lost."""
    forwarder = Forwarder(own_router, own_flowmap, cleanup)
    ends = [Connection.finish, Connection.reset, Connection.server_reset]
    rounds = 6 * effort()
    for number in range(rounds):
        version = random.choice((4, 6))
        talk = own_connection(TCP_PROTOCOL, version, server_port=7100 + number)
        talk.offloaded()
        assert Transfer(talk, _MIB // 4, seed=number).arrives()
        other = own_connection(UDP_PROTOCOL, version, server_port=7100 + number)
        other.offloaded()
        other.exchange()
        random.choice(ends)(talk)
        conntrack.delete(other.tuple, own_router.namespace)
        other.client.shutdown(socket.SHUT_RDWR)
    counted = forwarder.fates()
    print({fate.name: count for fate, count in counted.items()})
    assert counted[Fate.FORWARDED] > rounds * _MIB // 4 // 1500
    assert counted[Fate.OUT_OF_WINDOW] == counted[Fate.MALFORMED] == counted[Fate.BAD_FLAGS] == 0
