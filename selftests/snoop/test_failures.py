# SPDX-License-Identifier: GPL-2.0-only
"""A flow that is added while memory is short: its table first, and then who mirrors it."""

import errno
import socket
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import conntrack, faults, netns, nftables, tap, wait
from fixtures.guest.conntrack import Tuple
from fixtures.guest.plugin import Flowmap, describe
from fixtures.guest.topology import Plan, Router
from fixtures.guest.traffic import UDP_PROTOCOL, frame, key_of

_PORT = 7000
_BODY = b"to be known on the wire"
# The answer is to find no flow, and make none: that is for the packet whose way is watched.
_RULES = """
table inet made {
    flowtable ft { hook ingress priority 0; devices = { t0, r1 }; }
    chain forward {
        type filter hook forward priority 0;
        iifname "t0" meta l4proto udp ct state established flow add @ft
    }
}
"""


@pytest.fixture(autouse=True)
def _fault_injection() -> None:
    if why := faults.missing():
        pytest.skip(why)


@pytest.mark.clause("SN-7", "SN-9", "SN-8")
@pytest.mark.deadline(300)
@pytest.mark.parametrize("own_router", [Plan(tables="none")], ids=describe, indirect=True)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_flow_add_with_each_allocation_failing(
    own_router: Router, make_flowmap: Flowmap, cleanup: ExitStack, version: int
) -> None:
    wire = tap.beside(own_router, cleanup)
    nftables.run(_RULES, own_router.namespace)
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    server = netns.open_socket(own_router.server.namespace, family, socket.SOCK_DGRAM)
    cleanup.callback(server.close)
    server.settimeout(5 * wait.scale())
    server.bind((own_router.server.addresses[version], _PORT))
    maps = [make_flowmap(own_router.namespace) for _ in range(2)]
    side = Tuple(
        UDP_PROTOCOL,
        wire.client.addresses[version],
        own_router.server.addresses[version],
        39999,
        _PORT,
    )
    packet = b""
    seen: Counter[tuple[bool, int]] = Counter()
    missed = [0, 0]

    def answered() -> None:
        """A new connection, with an answer, and not offloaded yet."""
        nonlocal side, packet
        side = replace(side, source_port=side.source_port + 1)
        packet = frame(wire.client, wire.inside, side, payload=_BODY)
        wire.send(packet)
        # What the one before sent last may be there, too.
        while (peer := server.recvfrom(len(_BODY))[1])[1] != side.source_port:
            pass
        server.sendto(_BODY, peer)
        wire.receive(_BODY)
        entry = conntrack.find(side, own_router.namespace)
        assert entry is not None
        assert not entry.offloaded

    def go_on() -> None:
        wire.send(packet)

    def maps_have_it_or_count_it() -> None:
        entry = conntrack.find(side, own_router.namespace)
        assert entry is not None
        keys = [
            key_of(entry.original, wire.inside.index),
            key_of(entry.reply, own_router.outside.index),
        ]
        without = 0
        for place, fd in enumerate(maps):
            values = [bpf.found(fd, key) for key in keys]
            directions = [None if value is None else value.dir for value in values]
            assert directions in ([0, 1], [None, None])
            absent = directions[0] is None
            without += absent
            missed[place] += entry.offloaded and absent
            assert int(bpf.fdinfo(fd)["flowmap_missed"]) == missed[place]
            assert entry.offloaded or absent
        seen[entry.offloaded, without] += 1

    attempts = faults.each(go_on, maps_have_it_or_count_it, before=answered)
    print(attempts, seen)
    # Of the socket that the frame is charged to: sock_alloc_send_pskb().
    assert {attempt.errno for attempt in attempts} <= {0, errno.ENOMEM, errno.ENOBUFS}
    # No memory for the flow; none for one of its copies; and at last enough for all.
    assert seen[False, 2] >= 2
    assert seen[True, 1] >= 2
    assert seen[True, 0] >= 1
    assert missed[0] >= 1
    assert missed[1] >= 1
