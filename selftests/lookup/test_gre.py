# SPDX-License-Identifier: GPL-2.0-only
"""GRE, a protocol without ports: offloaded if conntrack tracks it (CONFIG_NF_CT_PROTO_GRE)."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netns, nftables
from fixtures.guest.net.conntrack import ConntrackEntry
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap
from fixtures.guest.topology.client_router_server import Interface, Router
from fixtures.guest.traffic import tx_capture
from fixtures.guest.traffic.connections import send_frames

IPPROTO_GRE = 47
_PAYLOAD = b"inside GRE"
_ROUNDS = 3
_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_gre_timeout")
"""Exists if the kernel has CONFIG_NF_CT_PROTO_GRE; without it GRE is not offloaded."""
_TIMEOUTS = ("netfilter/nf_conntrack_gre_timeout", "netfilter/nf_conntrack_gre_timeout_stream")

# Name: header, and the call id in it, which is the port of conntrack's tuple (PPTP, version 1).
# Where conntrack tracks GRE, flowtables offload what has no call id.
HEADERS: dict[str, tuple[Packet, int]] = {
    "version-0": (GRE(proto=0x0800), 0),
    "version-0-with-key": (GRE(proto=0x0800, key_present=1, key=7), 0),
    "version-1": (GRE(proto=0x880B, version=1, key_present=1, key=0x00040007), 7),
    "version-1-call-0": (GRE(proto=0x880B, version=1, key_present=1, key=0x00040000), 0),
}
_IPS_CONFIRMED = 1 << 3
_IPS_FIXED_TIMEOUT = 1 << 10


def _frame(sender: Interface, hop: Interface, receiver: Interface, header: Packet, v: int) -> bytes:
    internet = {4: IP, 6: IPv6}[v](src=sender.addresses[v], dst=receiver.addresses[v])
    if v == 4:
        internet.proto = IPPROTO_GRE
    else:
        internet.nh = IPPROTO_GRE
    return bytes(Ether(src=sender.mac, dst=hop.mac) / internet / header / Raw(_PAYLOAD))


@pytest.mark.clause("SN-2.1", "SN-2.5")
@pytest.mark.parametrize("kind", HEADERS)
def test_gre_connection_is_in_map_if_it_is_offloaded(
    private_router: Router,
    private_flowmap: int,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    kind: str,
) -> None:
    """GRE is found with ports 0 if the flowtable has it, and not found if the table refuses it.

    Flowtables take GRE without a call id in a kernel whose conntrack tracks GRE; else conntrack
    treats it as a protocol that it does not know, and the map is empty.
    """
    header, call = HEADERS[kind]
    if _TRACKED.exists():
        # Garbage collection warns about GRE with a timeout below 5 minutes (docs/findings.md).
        netns.set_sysctls(private_router.namespace, dict.fromkeys(_TIMEOUTS, 3600))
    rule = "add rule inet fw forward ct state established flow add @ft"
    nftables.run(rule, private_router.namespace)
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_tc"), "by_tc")
    maps = (private_flowmap, make_flowmap(private_router.namespace))
    for version in (4, 6):
        if call:
            _expect_call(private_router, call, version)
        entry = _track(private_router, header, version)
        assert entry.offloaded == (not call and _TRACKED.exists())
        keys = _keys(private_router, entry)
        if entry.offloaded:
            _assert_found(private_router, maps, probe, entry)
        else:
            _assert_empty(maps, keys)
        conntrack.flush(private_router.namespace)
        _assert_empty(maps, keys)


def _expect_call(router: Router, call: int, version: int) -> None:
    """Create the conntrack entry of a call that has the same id in both directions.

    The PPTP helper knows which ids belong together; without it each direction would be another
    connection, which has no reply and reaches no flow statement.
    """
    hosts = router.client.addresses[version], router.server.addresses[version]
    there, back = (
        conntrack.Tuple(IPPROTO_GRE, source, destination, 0, call)
        for source, destination in (hosts, hosts[::-1])
    )
    # A timeout of its own: the one of GRE is set in the first packet of a connection.
    conntrack.create(there, back, 600, _IPS_CONFIRMED | _IPS_FIXED_TIMEOUT, router.namespace)


def _track(router: Router, header: Packet, version: int) -> ConntrackEntry:
    """Send packets of one GRE connection both ways; return its conntrack entry."""
    request = _frame(router.client, router.lan, router.server, header, version)
    reply = _frame(router.server, router.wan, router.client, header, version)
    with tx_capture.capture_tx(router.namespace) as sent:
        for sends in range(1, _ROUNDS + 1):
            for host, frame, device in (
                (router.client, request, router.wan.device),
                (router.server, reply, router.lan.device),
            ):
                send_frames(host, [frame])
                wait_for(
                    f"a packet to leave by {device}",
                    lambda: len(sent(device, _PAYLOAD)) >= sends,  # noqa: B023
                )
    tracked = [
        entry
        for entry in conntrack.entries(router.namespace)
        if entry.original.protocol == IPPROTO_GRE
    ]
    assert len(tracked) == 1
    assert tracked[0].status & conntrack.IPS_SEEN_REPLY
    return tracked[0]


def _assert_found(
    router: Router, maps: Sequence[int], probe: LookupProbe, entry: ConntrackEntry
) -> None:
    """Require that every reader finds both directions, and no key with a port."""
    keys = _keys(router, entry)
    for fd in maps:
        assert sorted(map(bytes, bpf.iterate_keys(fd))) == sorted(map(bytes, keys))
        for direction, key in enumerate(keys):
            value = bpf.lookup(fd, key)
            assert (value.dir, value.ports.source, value.ports.destination) == (direction, 0, 0)
            assert value.ct_id == entry.ct_id
            assert value.oifindex == (router.wan, router.lan)[direction].ifindex
            assert probe.lookup(key) is not None
            for port in ("source", "destination"):
                other = uapi.Key.from_buffer_copy(key)
                setattr(other.ports, port, 1)
                assert bpf.lookup_or_none(fd, other) is None
                assert probe.lookup(other) is None
            as_udp = uapi.Key.from_buffer_copy(key)
            as_udp.l4proto = socket.IPPROTO_UDP
            assert bpf.lookup_or_none(fd, as_udp) is None


def _assert_empty(maps: Sequence[int], keys: Sequence[uapi.Key]) -> None:
    for fd in maps:
        assert [bpf.lookup_or_none(fd, key) for key in keys] == [None, None]
        assert list(bpf.iterate_keys(fd)) == []


def _keys(router: Router, entry: ConntrackEntry) -> list[uapi.Key]:
    """Return both directions' keys, whose ports are 0, whatever GRE key the packets have."""
    return [
        uapi.make_key(IPPROTO_GRE, side.source, side.destination, 0, 0, port.ifindex)
        for side, port in ((entry.original, router.lan), (entry.reply, router.wan))
    ]
