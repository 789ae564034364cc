# SPDX-License-Identifier: GPL-2.0-only
"""Source tables of every make: with counters, with wildcards, for hardware, and side by side."""

import errno
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.net.flowtable import INET
from fixtures.guest.pytest_plugin.fixtures import Connect, Load, Namespaces, describe
from fixtures.guest.topology import netdevsim
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import packet_headers, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Flow, connect, frame

BARE = pytest.mark.parametrize("own_router", [Plan(tables="none")], ids=describe, indirect=True)
SPLIT = pytest.mark.parametrize("own_router", [Plan(tables="split")], ids=describe, indirect=True)
protocols = pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
versions = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

_PAYLOAD = b"to be known on the wire"
_ROUNDS = 3
_DEVICES = "devices = { r0, r1 };"


def _source(router: Router, statements: str) -> None:
    """Give a router that has none the flow table ``inet made ft``, with these statements."""
    nftables.run(
        f"""
        table inet made {{
            flowtable ft {{ hook ingress priority 0; {statements} }}
            chain forward {{
                type filter hook forward priority 0;
                meta l4proto {{ tcp, udp }} ct state established flow add @ft
            }}
        }}
        """,
        router.namespace,
    )


def _directions(fd: int, flow: Flow) -> list[int | None]:
    values = [bpf.found(fd, key) for key in flow.keys]
    return [None if value is None else int(value.dir) for value in values]


@pytest.mark.clause("SN-2", "SN-5", "FM-10")
@BARE
@pytest.mark.parametrize("counter", ["counter;", ""], ids=["counter", "none"])
def test_packets_are_counted_and_lookups_are_not(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
    counter: str,
) -> None:
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_conntrack_acct": 1})
    _source(own_router, _DEVICES + counter)
    talk = own_connection(UDP_PROTOCOL, 4)
    flow = talk.offloaded()

    def counted() -> tuple[int, int]:
        entry = talk.entry()
        assert entry is not None
        assert entry.offloaded
        assert entry.packets is not None
        return entry.packets

    before = counted()
    for _ in range(_ROUNDS):
        talk.exchange()
    after = counted()
    grown = [new - old for old, new in zip(before, after, strict=True)]
    assert grown == ([_ROUNDS, _ROUNDS] if counter else [0, 0])

    program = load("xdp_flow_lookup", own_flowmap).program_fd("xdp_flow_lookup")
    packet = frame(own_router.client, own_router.inside, talk.tuple)
    for _ in range(_ROUNDS):
        assert _directions(own_flowmap, flow) == [0, 1]
        prog_syscalls.run_xdp(program, packet, own_router.inside.index, own_router.namespace)
    assert counted() == after


@pytest.mark.clause("SN-2", "SN-6")
@BARE
@versions
def test_flows_of_wildcard_devices_are_there(
    own_router: Router, own_flowmap: int, own_connection: Connect, version: int
) -> None:
    # nft of today may not know wildcards; the kernel takes them by netlink.
    _source(own_router, "")
    wild = flowtable.new_flowtable(INET, "made", "ft", devices=["r0*", "x*"], exclusive=False)
    flowtable.commit([wild], own_router.namespace)
    assert flowtable.find("made", "ft", own_router.namespace).devices == ("r0*", "x*")
    talk = own_connection(UDP_PROTOCOL, version)

    # As long as no device that leads to the server matches, there is no flow.
    for _ in range(_ROUNDS):
        talk.exchange()
    assert conntrack.offloaded(own_router.namespace) == []
    assert list(bpf.keys(own_flowmap)) == []

    renamed = rtnetlink.rename(own_router.outside.index, "x1")
    netlink.transact(netlink.NETLINK_ROUTE, [renamed], own_router.namespace)
    flow = talk.offloaded()
    assert _directions(own_flowmap, flow) == [0, 1]
    conntrack.delete(talk.tuple, own_router.namespace)
    assert _directions(own_flowmap, flow) == [None, None]


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1", "SN-5")
def test_snoop_table_may_list_wildcard_devices(namespace: Namespaces) -> None:
    inside = namespace("fm-wild")
    flowtable.create_snoop("spy", "all", inside, devices=["l*"])
    # One that comes later matches, too, and is not kept from coming.
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.dummy("later", 77)], inside)
    seen = flowtable.find("spy", "all", inside)
    assert (seen.flags, seen.devices) == (flowtable.SNOOP, ("l*",))
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete(77)], inside)


@pytest.mark.clause("SN-5", "SN-9")
def test_device_has_one_source_table_in_a_table_and_any_number_of_snoop_tables(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    devices = ["r0", "r1"]
    with refused(errno.EEXIST):
        second = flowtable.new_flowtable(INET, "fw", "second", devices=devices)
        flowtable.commit([second], own_router.namespace)
    for name in ("one", "other"):
        flowtable.create_snoop("fw", name, own_router.namespace, devices=devices)
    flow = own_connection(TCP_PROTOCOL, 4).offloaded()
    assert _directions(own_flowmap, flow) == [0, 1]
    for name in ("one", "other"):
        assert flowtable.find("fw", name, own_router.namespace).entries == 1


@pytest.mark.clause("SN-2", "SN-6")
@SPLIT
def test_device_in_several_tables_loses_the_flows_of_one(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    flows = {
        "fw": own_connection(TCP_PROTOCOL, 4, server_port=7001).offloaded(),
        "fw4": own_connection(UDP_PROTOCOL, 4, server_port=7002).offloaded(),
        "fw6": own_connection(UDP_PROTOCOL, 6, server_port=7003).offloaded(),
    }
    for table in flowtable.flowtables(own_router.namespace):
        if table.table in flows:
            assert sorted(table.devices) == ["r0", "r1"]
    left = list(flows)
    for name, family in (("fw4", flowtable.IPV4), ("fw", INET), ("fw6", flowtable.IPV6)):
        flowtable.drop_table(name, own_router.namespace, family)
        left.remove(name)
        for owner, flow in flows.items():
            wanted = [0, 1] if owner in left else [None, None]
            assert _directions(own_flowmap, flow) == wanted, f"{owner} after {name} has gone"
        assert len(list(bpf.keys(own_flowmap))) == 2 * len(left)


@pytest.mark.clause("SN-2", "SN-6", "FM-3")
@BARE
@protocols
@versions
def test_flows_of_a_table_for_hardware_are_there(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    netdevsim.under(own_router, cleanup)
    _source(own_router, _DEVICES + "flags offload;")
    assert flowtable.find("made", "ft", own_router.namespace).flags == flowtable.HW_OFFLOAD
    talk = connect(own_router, protocol, version, cleanup)
    flow = talk.offloaded()
    with tx_capture.frames(own_router.namespace) as sent:
        talk.exchange(_PAYLOAD)
        for key, device in ((flow.original, own_router.outside), (flow.reply, own_router.inside)):
            value = bpf.lookup(own_flowmap, key)
            # A table for hardware writes the Ethernet header itself.
            assert (value.xmit_type, value.oifindex) == (uapi.XMIT_DIRECT, device.index)
            seen = {packet_headers.carried(packet) for packet in sent(device.device, _PAYLOAD)}
            assert seen == {packet_headers.promised(value, key.l3proto)}

    conntrack.delete(talk.tuple, own_router.namespace)
    assert _directions(own_flowmap, flow) == [None, None]
    # The card is told first, by a work item.
    wait_for("the entry to go", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("SN-5")
@BARE
def test_table_for_hardware_is_refused_on_devices_that_have_none(own_router: Router) -> None:
    with pytest.raises(nftables.RulesetError, match="not supported"):
        _source(own_router, _DEVICES + "flags offload;")
    # A snoop table asks nothing of its devices.
    flowtable.create_snoop("spy", "all", own_router.namespace, devices=["r0", "r1"])
