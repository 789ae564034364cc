# SPDX-License-Identifier: GPL-2.0-only
"""Packets of one connection with different DSCP and ECN bits: one flow, one value."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Interface, Router
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import IPPROTO_UDP, Connection, build_frame

# DSCP: RFC 2474, 2597, 3246. ECN: RFC 3168.
DSCP_AND_ECN = {"CS1": (8, 0), "EF": (46, 0), "AF41 with ECT(0)": (34, 2), "CS7 with CE": (56, 3)}

# The counters of selftests/bpf/xdp_flow_lookup.bpf.c
HIT_ORIGINAL, HIT_REPLY, MISS = 0, 1, 2


def _tos(data: bytes) -> int:
    """Return a frame's TOS or traffic class byte: DSCP and ECN."""
    packet = Ether(data)
    return int(packet[IP].tos if IP in packet else packet[IPv6].tc)


def _frame_with_tos(sender: Interface, receiver: Interface, conn: Connection, tos: int) -> bytes:
    """Build a frame of the connection with this TOS or traffic class byte."""
    packet = Ether(build_frame(sender, receiver, conn.tuple))
    if IP in packet:
        packet[IP].tos = tos
        del packet[IP].chksum
    else:
        packet[IPv6].tc = tos
    return bytes(packet)


def _value_without_expiry(fd: int, key: uapi.Key) -> bytes:
    """Look a key up; the value's expiry, which packets refresh, is set to 0."""
    value = bpf.lookup(fd, key)
    value.expires = 0  # refreshed by each packet
    return bytes(value)


@pytest.mark.clause("FM-3.4", "FM-4.7")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_packets_with_different_dscp_hit_one_flow(
    router: Router, flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf, version: int
) -> None:
    """Packets with any DSCP and ECN bits keep them and hit the connection's one flow."""
    program = load_bpf("xdp_flow_lookup", flowmap)
    conn = open_connection(IPPROTO_UDP, version)
    flow = conn.wait_offloaded()
    expected = [_value_without_expiry(flowmap, key) for key in flow.keys]

    for lookups, (mark, (dscp, ecn)) in enumerate(DSCP_AND_ECN.items(), start=1):
        tos = dscp << 2 | ecn
        conn.set_dscp(dscp, ecn)
        with tx_capture.capture_tx(router.namespace) as sent:
            conn.exchange(tx_capture.PAYLOAD)
            for port in (router.wan, router.lan):
                assert [_tos(data) for data in sent(port.device, tx_capture.PAYLOAD)] == [tos], mark
        assert [_value_without_expiry(flowmap, key) for key in flow.keys] == expected, mark
        packet = _frame_with_tos(router.client, router.lan, conn, tos)
        run = program.program_fd("xdp_flow_lookup")
        prog_syscalls.run_xdp(run, packet, router.lan.ifindex, router.namespace)
        assert (program.counter(HIT_ORIGINAL), program.counter(MISS)) == (lookups, 0), mark
    entry = conn.conntrack_entry()
    assert entry is not None
    assert entry.offloaded
    assert len(list(bpf.iterate_keys(flowmap))) == 2
