# SPDX-License-Identifier: GPL-2.0-only
"""Source tables with counters, wildcard devices or hardware offload, and several at once."""

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
from fixtures.guest.pytest_plugin.plugin_api import Connect, Load, Namespaces, describe
from fixtures.guest.topology import netdevsim
from fixtures.guest.topology.client_router_server import Plan, Router
from fixtures.guest.traffic import packet_headers, tx_capture
from fixtures.guest.traffic.connections import TCP_PROTOCOL, UDP_PROTOCOL, Flow, connect, frame

without_source_table = pytest.mark.parametrize(
    "own_router", [Plan(tables="none")], ids=describe, indirect=True
)
split_source_tables = pytest.mark.parametrize(
    "own_router", [Plan(tables="split")], ids=describe, indirect=True
)
each_protocol = pytest.mark.parametrize(
    "protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"]
)
each_ip_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

_PAYLOAD = b"to be known on the wire"
_ROUNDS = 3
_DEVICES = "devices = { r0, r1 };"


def _add_source_table(router: Router, statements: str) -> None:
    """Add the flow table ``inet made ft``, with these statements, to a router without one."""
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


def _lookup_directions(fd: int, flow: Flow) -> list[int | None]:
    """Return the direction that each key's lookup finds, or None for a miss."""
    values = [bpf.found(fd, key) for key in flow.keys]
    return [None if value is None else int(value.dir) for value in values]


@pytest.mark.clause("SN-2", "SN-5", "FM-10")
@without_source_table
@pytest.mark.parametrize("counter", ["counter;", ""], ids=["counter", "no-counter"])
def test_packets_are_counted_and_lookups_are_not(
    own_router: Router,
    own_flowmap: int,
    own_connection: Connect,
    load: Load,
    counter: str,
) -> None:
    """A flow table with a counter counts packets; lookups by syscall or program are not counted."""
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_conntrack_acct": 1})
    _add_source_table(own_router, _DEVICES + counter)
    conn = own_connection(UDP_PROTOCOL, 4)
    flow = conn.offloaded()

    def packet_counts() -> tuple[int, int]:
        ct_entry = conn.entry()
        assert ct_entry is not None
        assert ct_entry.offloaded
        assert ct_entry.packets is not None
        return ct_entry.packets

    before = packet_counts()
    for _ in range(_ROUNDS):
        conn.exchange()
    after = packet_counts()
    grown = [new - old for old, new in zip(before, after, strict=True)]
    assert grown == ([_ROUNDS, _ROUNDS] if counter else [0, 0])

    program = load("xdp_flow_lookup", own_flowmap).program_fd("xdp_flow_lookup")
    packet = frame(own_router.client, own_router.inside, conn.tuple)
    for _ in range(_ROUNDS):
        assert _lookup_directions(own_flowmap, flow) == [0, 1]
        prog_syscalls.run_xdp(program, packet, own_router.inside.index, own_router.namespace)
    assert packet_counts() == after


@pytest.mark.clause("SN-2", "SN-6")
@without_source_table
@each_ip_version
def test_flows_of_wildcard_devices_are_there(
    own_router: Router, own_flowmap: int, own_connection: Connect, version: int
) -> None:
    """Flows of a source table with wildcard devices are mirrored once its devices match."""
    # Current nft may lack wildcards, so the devices are set by netlink.
    _add_source_table(own_router, "")
    wild = flowtable.new_flowtable(INET, "made", "ft", devices=["r0*", "x*"], exclusive=False)
    flowtable.commit([wild], own_router.namespace)
    assert flowtable.find("made", "ft", own_router.namespace).devices == ("r0*", "x*")
    conn = own_connection(UDP_PROTOCOL, version)

    # No flow is added as long as no device towards the server matches.
    for _ in range(_ROUNDS):
        conn.exchange()
    assert conntrack.offloaded(own_router.namespace) == []
    assert list(bpf.keys(own_flowmap)) == []

    renamed = rtnetlink.rename(own_router.outside.index, "x1")
    netlink.transact(netlink.NETLINK_ROUTE, [renamed], own_router.namespace)
    flow = conn.offloaded()
    assert _lookup_directions(own_flowmap, flow) == [0, 1]
    conntrack.delete(conn.tuple, own_router.namespace)
    assert _lookup_directions(own_flowmap, flow) == [None, None]


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1", "SN-5")
def test_snoop_table_may_list_wildcard_devices(namespace: Namespaces) -> None:
    """A snoop table accepts wildcard devices, and a matching device can be added later."""
    ns = namespace("fm-wild")
    flowtable.create_snoop("spy", "all", ns, devices=["l*"])
    # A matching device that is added later is accepted.
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.dummy("later", 77)], ns)
    seen = flowtable.find("spy", "all", ns)
    assert (seen.flags, seen.devices) == (flowtable.SNOOP, ("l*",))
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete(77)], ns)


@pytest.mark.clause("SN-5", "SN-9")
def test_device_has_one_source_table_in_a_table_and_any_number_of_snoop_tables(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    """A device in a second source flowtable of one nft table gives EEXIST.

    Any number of snoop tables may list the device.
    """
    devices = ["r0", "r1"]
    with refused(errno.EEXIST):
        second = flowtable.new_flowtable(INET, "fw", "second", devices=devices)
        flowtable.commit([second], own_router.namespace)
    for name in ("one", "other"):
        flowtable.create_snoop("fw", name, own_router.namespace, devices=devices)
    flow = own_connection(TCP_PROTOCOL, 4).offloaded()
    assert _lookup_directions(own_flowmap, flow) == [0, 1]
    for name in ("one", "other"):
        assert flowtable.find("fw", name, own_router.namespace).entries == 1


@pytest.mark.clause("SN-2", "SN-6")
@split_source_tables
def test_device_in_several_tables_loses_the_flows_of_one(
    own_router: Router, own_flowmap: int, own_connection: Connect
) -> None:
    """Deleting one of several source tables on a device removes only that table's flows."""
    flows = {
        "fw": own_connection(TCP_PROTOCOL, 4, server_port=7001).offloaded(),
        "fw4": own_connection(UDP_PROTOCOL, 4, server_port=7002).offloaded(),
        "fw6": own_connection(UDP_PROTOCOL, 6, server_port=7003).offloaded(),
    }
    for table in flowtable.flowtables(own_router.namespace):
        if table.table in flows:
            assert sorted(table.devices) == ["r0", "r1"]
    remaining_tables = list(flows)
    for name, family in (("fw4", flowtable.IPV4), ("fw", INET), ("fw6", flowtable.IPV6)):
        flowtable.drop_table(name, own_router.namespace, family)
        remaining_tables.remove(name)
        for owner, flow in flows.items():
            expected = [0, 1] if owner in remaining_tables else [None, None]
            assert _lookup_directions(own_flowmap, flow) == expected, (
                f"{owner} after deleting {name}"
            )
        assert len(list(bpf.keys(own_flowmap))) == 2 * len(remaining_tables)


@pytest.mark.clause("SN-2", "SN-6", "FM-3")
@without_source_table
@each_protocol
@each_ip_version
def test_flows_of_a_table_for_hardware_are_there(
    own_router: Router, own_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    """Flows of a table with hardware offload are mirrored, and the value matches the wire."""
    netdevsim.under(own_router, cleanup)
    _add_source_table(own_router, _DEVICES + "flags offload;")
    assert flowtable.find("made", "ft", own_router.namespace).flags == flowtable.HW_OFFLOAD
    conn = connect(own_router, protocol, version, cleanup)
    flow = conn.offloaded()
    with tx_capture.frames(own_router.namespace) as sent:
        conn.exchange(_PAYLOAD)
        for key, device in ((flow.original, own_router.outside), (flow.reply, own_router.inside)):
            value = bpf.lookup(own_flowmap, key)
            # A table with hardware offload writes the Ethernet header itself.
            assert (value.xmit_type, value.oifindex) == (uapi.XMIT_DIRECT, device.index)
            seen = {packet_headers.carried(packet) for packet in sent(device.device, _PAYLOAD)}
            assert seen == {packet_headers.promised(value, key.l3proto)}

    conntrack.delete(conn.tuple, own_router.namespace)
    assert _lookup_directions(own_flowmap, flow) == [None, None]
    # A work item removes the flow from the hardware first.
    wait_for("the entry to be removed", lambda: bpf.entries(own_flowmap) == 0)


@pytest.mark.clause("SN-5")
@without_source_table
def test_table_for_hardware_is_refused_on_devices_that_have_none(own_router: Router) -> None:
    """A table with hardware offload is refused on devices without it; a snoop table is not."""
    with pytest.raises(nftables.RulesetError, match="not supported"):
        _add_source_table(own_router, _DEVICES + "flags offload;")
    # A snoop table requires nothing of its devices.
    flowtable.create_snoop("spy", "all", own_router.namespace, devices=["r0", "r1"])
