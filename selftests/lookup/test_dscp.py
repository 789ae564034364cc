# SPDX-License-Identifier: GPL-2.0-only
"""Packets of one connection with different DSCP: one flow, and one answer."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.pytest_plugin.fixtures import Connect, Load
from fixtures.guest.topology.client_router_server import Port, Router
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Connection, frame

# RFC 2474, 2597, 3246; the last two octets have ECN bits (RFC 3168), too.
MARKS = {"CS1": (8, 0), "EF": (46, 0), "AF41 with ECT(0)": (34, 2), "CS7 with CE": (56, 3)}

# The counters of selftests/bpf/xdp_flow_lookup.bpf.c
HIT_ORIGINAL, HIT_REPLY, MISS = 0, 1, 2


def _octet(data: bytes) -> int:
    """The octet of DSCP and ECN that a frame carries."""
    packet = Ether(data)
    return int(packet[IP].tos if IP in packet else packet[IPv6].tc)


def _marked(sender: Port, receiver: Port, talk: Connection, octet: int) -> bytes:
    packet = Ether(frame(sender, receiver, talk.tuple))
    if IP in packet:
        packet[IP].tos = octet
        del packet[IP].chksum
    else:
        packet[IPv6].tc = octet
    return bytes(packet)


def _value(fd: int, key: uapi.Key) -> bytes:
    value = bpf.lookup(fd, key)
    value.expires = 0  # moves with each packet
    return bytes(value)


@pytest.mark.clause("FM-3", "FM-4", "FM-5")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_packets_of_any_dscp_are_one_flow(
    router: Router, flowmap: int, connection: Connect, load: Load, version: int
) -> None:
    program = load("xdp_flow_lookup", flowmap)
    talk = connection(UDP_PROTOCOL, version)
    flow = talk.offloaded()
    told = [_value(flowmap, key) for key in flow.keys]

    for asked, (name, (dscp, ecn)) in enumerate(MARKS.items(), start=1):
        octet = dscp << 2 | ecn
        talk.mark(dscp, ecn)
        with tx_capture.frames(router.namespace) as sent:
            talk.exchange(tx_capture.PAYLOAD)
            for device in (router.outside, router.inside):
                assert [_octet(data) for data in sent(device.device, tx_capture.PAYLOAD)] == [
                    octet
                ], name
        assert [_value(flowmap, key) for key in flow.keys] == told, name
        packet = _marked(router.client, router.inside, talk, octet)
        run = program.program_fd("xdp_flow_lookup")
        prog_syscalls.run_xdp(run, packet, router.inside.index, router.namespace)
        assert (program.counter(HIT_ORIGINAL), program.counter(MISS)) == (asked, 0), name
    entry = talk.entry()
    assert entry is not None
    assert entry.offloaded
    assert len(list(bpf.keys(flowmap))) == 2
