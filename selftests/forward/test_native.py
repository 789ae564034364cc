# SPDX-License-Identifier: GPL-2.0-only
"""The program in the devices' drivers, where it is at home: no packet buffer of the stack's."""

from contextlib import ExitStack

import pytest

from fixtures.guest import arriving, leaving, outgoing
from fixtures.guest import bpf_syscall as bpf
from fixtures.guest.forwarder import Fate, Forwarder
from fixtures.guest.plugin import Connect, describe
from fixtures.guest.topology import Plan, Router
from fixtures.guest.traffic import TCP_PROTOCOL, UDP_PROTOCOL
from fixtures.guest.transfer import Transfer

protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PLANS = [Plan(), Plan(nat="snat+dnat"), Plan(vlans=(100, 7))]


@pytest.mark.clause("FM-3", "FM-4")
@pytest.mark.parametrize("router", PLANS, ids=describe, indirect=True)
@versions
@protocols
def test_driver_forwards_as_the_value_says(
    router: Router,
    flowmap: int,
    connection: Connect,
    cleanup: ExitStack,
    protocol: int,
    version: int,
) -> None:
    forwarder = Forwarder(router, flowmap, cleanup, native=True)
    talk = connection(protocol, version)
    flow = talk.offloaded()
    before = forwarder.fates()[Fate.FORWARDED]
    with arriving.frames(router.server) as at_server, arriving.frames(router.client) as at_client:
        talk.exchange(outgoing.PAYLOAD)
        for key, arrived in ((flow.original, at_server), (flow.reply, at_client)):
            (received,) = arrived(outgoing.PAYLOAD)
            assert leaving.carried(received) == leaving.promised(
                bpf.lookup(flowmap, key), key.l3proto
            )
            assert leaving.intact(received)
    assert forwarder.fates()[Fate.FORWARDED] - before >= 2


@pytest.mark.clause("FM-3", "FM-10")
@versions
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
