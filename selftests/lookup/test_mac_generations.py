# SPDX-License-Identifier: GPL-2.0-only
"""MAC addresses of a value follow each kind of change of neighbours and devices.

The kernel may keep the addresses of an earlier lookup only as long as nothing has changed, so every
test looks up before the change as well as after it.
"""

import struct
import sys
from collections.abc import Callable

import pytest
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU
from fixtures.guest.net import netlink, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Interface, Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

NO_MAC = "00:00:00:00:00:00"
OTHER_MAC, THIRD_MAC = "02:00:00:00:00:77", "06:11:22:33:44:55"
NUD_REACHABLE, NUD_NOARP = 0x02, 0x40

_SLOT = bytes(4)
_FRAME = bytes(64)
_FLIPS, _READS = 200, 2000
# Counters of selftests/bpf/mac_reader.bpf.c
EXPECTED, ZERO, OTHER, DEST_SLOTS = range(4)
MISS = 2 * DEST_SLOTS

each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
each_protocol = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])

# Returns h_source and h_dest of each direction; None for a direction that is a miss.
ReadMacs = Callable[[], list[tuple[str, str] | None]]


def _send(namespace: str, *messages: nlmsg) -> None:
    netlink.transact(netlink.NETLINK_ROUTE, messages, namespace)


def _macs(value: uapi.Value | None) -> tuple[str, str] | None:
    if value is None:
        return None
    # A program may read each address as one word of 8 bytes.
    assert (value.reserved, value.reserved2) == (0, 0)
    return uapi.format_mac(value.h_source), uapi.format_mac(value.h_dest)


def _set_device_mac(port: Interface, mac: str) -> nlmsg:
    return netlink.build_message(
        ifinfmsg, RTM_SETLINK, 0, [("IFLA_ADDRESS", mac)], index=port.ifindex
    )


@pytest.fixture(params=["syscall", "by_xdp", "by_tc"])
def reader(
    request: pytest.FixtureRequest, private_flowmap: int, load_bpf: LoadBpf
) -> Callable[[Flow], ReadMacs]:
    """Read a flow's MAC addresses by bpf(2), or by a program of one of two types."""
    if request.param == "syscall":
        return lambda flow: (
            lambda: [_macs(bpf.lookup_or_none(private_flowmap, key)) for key in flow.keys]
        )
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, request.param), request.param)
    return lambda flow: lambda: [_macs(probe.lookup(key)) for key in flow.keys]


@pytest.mark.clause("FM-3.13", "FM-3.14", "FM-3.15")
@each_version
@each_protocol
@pytest.mark.parametrize("direction", [0, 1], ids=["original", "reply"])
def test_value_mac_follows_each_change_of_neighbour(
    private_router: Router,
    open_private_connection: OpenConnection,
    reader: Callable[[Flow], ReadMacs],
    protocol: int,
    version: int,
    direction: int,
) -> None:
    """After each change of the neighbour the value has its address, or zeros while it is invalid.

    The other direction, which has another neighbour, is unchanged.
    """
    flow = open_private_connection(protocol, version).wait_offloaded()
    read = reader(flow)
    lan, wan = private_router.lan, private_router.wan
    port, peer = ((wan, private_router.server), (lan, private_router.client))[direction]
    host = peer.addresses[version]
    unchanged = read()[1 - direction]
    assert read()[direction] == (port.mac, peer.mac)

    def state(number: int) -> nlmsg:
        return rtnetlink.set_neigh_state(port.ifindex, host, number)

    def mac(address: str) -> nlmsg:
        return rtnetlink.add_permanent_neigh(port.ifindex, host, address)

    valid, other, none = (port.mac, peer.mac), (port.mac, OTHER_MAC), (NO_MAC, NO_MAC)
    steps: list[tuple[str, nlmsg, tuple[str, str]]] = [
        ("reachable", state(NUD_REACHABLE), valid),
        ("reachable to stale", state(rtnetlink.NUD_STALE), valid),
        ("stale to noarp", state(NUD_NOARP), valid),
        ("noarp to failed", state(rtnetlink.NUD_FAILED), none),
        ("failed to permanent", mac(peer.mac), valid),
        ("permanent to failed", state(rtnetlink.NUD_FAILED), none),
        ("failed to permanent, other address", mac(OTHER_MAC), other),
        ("address replaced", mac(THIRD_MAC), (port.mac, THIRD_MAC)),
        ("address replaced by the first", mac(peer.mac), valid),
        ("deleted", rtnetlink.delete_neigh(port.ifindex, host), none),
        ("added again, other address", mac(OTHER_MAC), other),
        ("deleted again", rtnetlink.delete_neigh(port.ifindex, host), none),
        ("added again", mac(peer.mac), valid),
    ]
    for step, change, expected in steps:
        _send(private_router.namespace, change)
        for _ in range(2):
            seen = read()
            assert (seen[direction], seen[1 - direction]) == (expected, unchanged), step


@pytest.mark.clause("FM-3.13")
@each_version
def test_value_mac_change_is_in_each_map(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    version: int,
) -> None:
    """Whichever map is looked up first after a change, all show the new address."""
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    maps = [private_flowmap, *(make_flowmap(private_router.namespace) for _ in range(2))]
    wan, host = private_router.wan, private_router.server.addresses[version]
    for number in range(6):
        mac = f"02:00:00:00:01:{number:02x}"
        _send(wan.namespace, rtnetlink.add_permanent_neigh(wan.ifindex, host, mac))
        in_turn = maps[number % 3 :] + maps[: number % 3]
        assert [_macs(bpf.lookup(fd, flow.original)) for fd in in_turn] == [(wan.mac, mac)] * 3


@pytest.mark.clause("FM-3.13")
@each_version
def test_value_mac_of_many_flows_follows_one_neighbour(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """All flows to one neighbour have its new address, those that were never looked up included."""
    flows = [
        open_private_connection(IPPROTO_UDP, version, server_port=7300 + number).wait_offloaded()
        for number in range(8)
    ]
    wan, host = private_router.wan, private_router.server.addresses[version]
    for flow in flows[::2]:
        assert _macs(bpf.lookup(private_flowmap, flow.original)) is not None
    for mac in (OTHER_MAC, THIRD_MAC):
        _send(wan.namespace, rtnetlink.add_permanent_neigh(wan.ifindex, host, mac))
        seen = [_macs(bpf.lookup(private_flowmap, flow.original)) for flow in flows]
        assert seen == [(wan.mac, mac)] * len(flows)


@pytest.mark.clause("FM-3.13")
@each_version
def test_value_mac_is_unchanged_by_other_neighbours(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """Changes of many other neighbours, on both devices, change nothing in either direction."""
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    expected = [bytes(bpf.lookup(private_flowmap, key)) for key in flow.keys]
    nets = {4: ("192.0.2.", "198.51.100."), 6: ("2001:db8:1::", "2001:db8:2::")}[version]
    ports = (private_router.lan, private_router.wan)
    for number in range(16, 80):
        for port, net in zip(ports, nets, strict=True):
            host = f"{net}{number}"
            _send(
                port.namespace,
                rtnetlink.add_permanent_neigh(port.ifindex, host, OTHER_MAC),
                rtnetlink.delete_neigh(port.ifindex, host),
            )
        assert [bytes(bpf.lookup(private_flowmap, key)) for key in flow.keys] == expected


@pytest.mark.clause("FM-3.13", "FM-3.14")
@each_version
def test_value_mac_is_unchanged_by_neighbour_of_other_netns(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """A neighbour with the same address on a device with the same index is another one.

    Both routers have the same devices and addresses, in namespaces of their own.
    """
    flow = open_connection(IPPROTO_UDP, version).wait_offloaded()
    own_flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    wan, host = private_router.wan, private_router.server.addresses[version]
    assert (router.wan.ifindex, router.server.addresses[version]) == (wan.ifindex, host)
    first = _macs(bpf.lookup(flowmap, flow.original))
    assert first == (router.wan.mac, router.server.mac)
    assert _macs(bpf.lookup(private_flowmap, own_flow.original)) == (wan.mac, router.server.mac)
    for change, expected in (
        (rtnetlink.add_permanent_neigh(wan.ifindex, host, OTHER_MAC), (wan.mac, OTHER_MAC)),
        (rtnetlink.set_neigh_state(wan.ifindex, host, rtnetlink.NUD_FAILED), (NO_MAC, NO_MAC)),
        (rtnetlink.delete_neigh(wan.ifindex, host), (NO_MAC, NO_MAC)),
    ):
        _send(private_router.namespace, change)
        assert _macs(bpf.lookup(private_flowmap, own_flow.original)) == expected
        assert _macs(bpf.lookup(flowmap, flow.original)) == first


@pytest.mark.clause("FM-3.13", "FM-3.14")
@each_version
def test_value_never_has_old_mac_of_device(
    private_router: Router,
    open_private_connection: OpenConnection,
    reader: Callable[[Flow], ReadMacs],
    version: int,
) -> None:
    """After the output device has another address, no lookup shows the old one.

    The change removes the device's neighbours, and makes IPv4 routes stale.  So a direction is a
    miss, or has zeros, until there is a neighbour again; then it has the new address.
    """
    conn = open_private_connection(IPPROTO_UDP, version)
    flow = conn.wait_offloaded()
    read = reader(flow)
    wan, server = private_router.wan, private_router.server
    assert read()[0] == (wan.mac, server.mac)
    _send(wan.namespace, _set_device_mac(wan, OTHER_MAC))
    assert read()[0] in (None, (NO_MAC, NO_MAC))
    _send(
        wan.namespace,
        rtnetlink.add_permanent_neigh(wan.ifindex, server.addresses[version], server.mac),
    )
    assert read()[0] in (None, (OTHER_MAC, server.mac))

    _send(
        server.namespace,
        rtnetlink.add_permanent_neigh(server.ifindex, wan.addresses[version], OTHER_MAC),
    )
    if read()[0] is None:
        conn.wait_reoffloaded()
    wait_for("the new address", lambda: read()[0] == (OTHER_MAC, server.mac))


@pytest.mark.clause("FM-3.13")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(bridge="plain")], ids=router_config_id, indirect=True
)
def test_value_mac_of_direct_transmit_is_unchanged_by_neighbour(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """Addresses of a direction with transmit type direct stay as the flow table has them."""
    flow = open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    value = bpf.lookup(private_flowmap, flow.reply)
    assert value.xmit_type == uapi.XMIT_DIRECT
    before = _macs(value)
    assert before == (private_router.lan.mac, private_router.client.mac)
    bridge = private_router.lan.ifindex + 800
    host = private_router.client.addresses[4]
    _send(private_router.namespace, rtnetlink.add_permanent_neigh(bridge, host, OTHER_MAC))
    assert _macs(bpf.lookup(private_flowmap, flow.reply)) == before


@pytest.mark.clause("FM-3.17")
@each_version
def test_lookups_without_change_return_equal_values(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    make_flowmap: MakeFlowmap,
    version: int,
) -> None:
    """Without a refresh or a change, lookups return the same value bit for bit, expiry included."""
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    first = [bytes(bpf.lookup(private_flowmap, key)) for key in flow.keys]
    passive = make_flowmap(private_router.namespace, map_extra=uapi.PASSIVE)
    probe = LookupProbe(load_bpf("lookup_probe", passive, "by_xdp"), "by_xdp")
    for _ in range(10):
        assert [bytes(bpf.lookup(private_flowmap, key)) for key in flow.keys] == first
        assert [bytes(probe.lookup(key) or b"") for key in flow.keys] == first
        pairs, _, _ = bpf.lookup_batch(private_flowmap, 4)
        assert {bytes(key): bytes(value) for key, value in pairs} == dict(
            zip(map(bytes, flow.keys), first, strict=True)
        )


def _word(mac: str) -> int:
    """Return the word that a program reads at an address and the two reserved octets after it."""
    return int.from_bytes(bytes.fromhex(mac.replace(":", "")) + bytes(2), sys.byteorder)


@pytest.mark.clause("FM-3.15")
@pytest.mark.usefixtures("pinned_to_test_cpu")
@pytest.mark.deadline(60)
@each_version
def test_mac_read_in_one_access_is_whole(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    version: int,
) -> None:
    """A program that reads an address in one access never reads parts of two.

    One CPU changes the neighbour and looks up after each change; another one only looks up.
    """
    flow = open_private_connection(IPPROTO_UDP, version).wait_offloaded()
    wan, host = private_router.wan, private_router.server.addresses[version]
    choices = ("02:00:00:00:00:1f", "06:ff:ff:ff:ff:e0")
    loaded: BpfObject = load_bpf("mac_reader", private_flowmap, "read_macs")
    program = loaded.program_fd("read_macs")
    words = [_word(mac) for mac in (*choices, wan.mac, wan.mac)]
    expected = bytes(flow.original) + struct.pack("=4Q", *words)
    _send(wan.namespace, rtnetlink.add_permanent_neigh(wan.ifindex, host, choices[0]))
    bpf.update_raw(loaded.map_fd("expected"), _SLOT, expected)

    def change() -> None:
        for number in range(_FLIPS):
            update = rtnetlink.add_permanent_neigh(wan.ifindex, host, choices[number % 2])
            _send(wan.namespace, update)
            prog_syscalls.run_on_packet(program, _FRAME, repeat=10)

    changing = child_process.GatedChild(change, HELD_CPU)
    changing.start()
    for _ in range(_FLIPS // 10):
        prog_syscalls.run_on_packet(program, _FRAME, repeat=_READS)
    changing.join()
    counted = [loaded.counter(slot) for slot in range(MISS + 1)]
    assert counted[EXPECTED] > _FLIPS
    assert (counted[OTHER], counted[DEST_SLOTS + OTHER], counted[MISS]) == (0, 0, 0)
