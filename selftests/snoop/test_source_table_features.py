# SPDX-License-Identifier: GPL-2.0-only
"""Source tables with counters, wildcard devices or hardware offload, and several at once."""

import errno
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.net.flowtable import INET
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeNetns,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology import netdevsim
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic import headers_from_value, tx_capture
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow, build_frame, connect

without_source_table = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
split_source_tables = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="split")], ids=router_config_id, indirect=True
)
each_protocol = pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
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
    values = [bpf.lookup_or_none(fd, key) for key in flow.keys]
    return [None if value is None else int(value.dir) for value in values]


@pytest.mark.clause("SN-2.1", "SN-5.2")
@without_source_table
@pytest.mark.parametrize("counter", ["counter;", ""], ids=["counter", "no-counter"])
def test_flow_counters_count_packets_but_not_lookups(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    counter: str,
) -> None:
    """A flow table with a counter counts packets; lookups by syscall or program are not counted."""
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_conntrack_acct": 1})
    _add_source_table(private_router, _DEVICES + counter)
    conn = open_private_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()

    def packet_counts() -> tuple[int, int]:
        ct_entry = conn.conntrack_entry()
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

    program = load_bpf("xdp_flow_lookup", private_flowmap).program_fd("xdp_flow_lookup")
    packet = build_frame(private_router.client, private_router.lan, conn.tuple)
    for _ in range(_ROUNDS):
        assert _lookup_directions(private_flowmap, flow) == [0, 1]
        prog_syscalls.run_xdp(program, packet, private_router.lan.ifindex, private_router.namespace)
    assert packet_counts() == after


@pytest.mark.clause("SN-2.1", "SN-2.5", "SN-6.4")
@without_source_table
@each_ip_version
def test_flows_of_wildcard_devices_are_mirrored(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """Flows of a source table with wildcard devices are mirrored once its devices match."""
    # Current nft may lack wildcards, so the devices are set by netlink.
    _add_source_table(private_router, "")
    wild = flowtable.new_flowtable(INET, "made", "ft", devices=["r0*", "x*"], exclusive=False)
    flowtable.commit_batch([wild], private_router.namespace)
    assert flowtable.get_flowtable("made", "ft", private_router.namespace).devices == ("r0*", "x*")
    conn = open_private_connection(IPPROTO_UDP, version)

    # No flow is added as long as no device towards the server matches.
    for _ in range(_ROUNDS):
        conn.exchange()
    assert conntrack.offloaded_entries(private_router.namespace) == []
    assert list(bpf.iterate_keys(private_flowmap)) == []

    renamed = rtnetlink.rename(private_router.wan.ifindex, "x1")
    netlink.transact(netlink.NETLINK_ROUTE, [renamed], private_router.namespace)
    flow = conn.wait_offloaded()
    assert _lookup_directions(private_flowmap, flow) == [0, 1]
    conntrack.delete(conn.tuple, private_router.namespace)
    assert _lookup_directions(private_flowmap, flow) == [None, None]


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.1")
def test_snoop_table_accepts_wildcard_devices(make_netns: MakeNetns) -> None:
    """A snoop table accepts wildcard devices, and a matching device can be added later."""
    ns = make_netns("fm-wild")
    flowtable.create_snoop_table("spy", "all", ns, devices=["l*"])
    # A matching device that is added later is accepted.
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.add_dummy("later", 77)], ns)
    seen = flowtable.get_flowtable("spy", "all", ns)
    assert (seen.flags, seen.devices) == (flowtable.SNOOP, ("l*",))
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete_link(77)], ns)


@pytest.mark.clause("SN-5.1", "SN-9.1")
def test_device_in_second_source_table_is_eexist(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """A device in a second source flowtable of one nft table gives EEXIST.

    Any number of snoop tables may list the device.
    """
    devices = ["r0", "r1"]
    with expect_errno(errno.EEXIST):
        second = flowtable.new_flowtable(INET, "fw", "second", devices=devices)
        flowtable.commit_batch([second], private_router.namespace)
    for name in ("one", "other"):
        flowtable.create_snoop_table("fw", name, private_router.namespace, devices=devices)
    flow = open_private_connection(IPPROTO_TCP, 4).wait_offloaded()
    assert _lookup_directions(private_flowmap, flow) == [0, 1]
    for name in ("one", "other"):
        wait_for(
            f"snoop table {name} to have the flow",
            lambda: flowtable.snoop_counters("fw", name, private_router.namespace) == (1, 0),  # noqa: B023
        )


@pytest.mark.clause("SN-2.2", "SN-6.7")
@split_source_tables
def test_source_table_delete_removes_only_its_flows(
    private_router: Router, private_flowmap: int, open_private_connection: OpenConnection
) -> None:
    """Deleting one of several source tables on a device removes only that table's flows."""
    flows = {
        "fw": open_private_connection(IPPROTO_TCP, 4, server_port=7001).wait_offloaded(),
        "fw4": open_private_connection(IPPROTO_UDP, 4, server_port=7002).wait_offloaded(),
        "fw6": open_private_connection(IPPROTO_UDP, 6, server_port=7003).wait_offloaded(),
    }
    for table in flowtable.list_flowtables(private_router.namespace):
        if table.table in flows:
            assert sorted(table.devices) == ["r0", "r1"]
    remaining_tables = list(flows)
    for name, family in (("fw4", flowtable.IPV4), ("fw", INET), ("fw6", flowtable.IPV6)):
        flowtable.drop_table(name, private_router.namespace, family)
        remaining_tables.remove(name)
        for owner, flow in flows.items():
            expected = [0, 1] if owner in remaining_tables else [None, None]
            assert _lookup_directions(private_flowmap, flow) == expected, (
                f"{owner} after deleting {name}"
            )
        assert len(list(bpf.iterate_keys(private_flowmap))) == 2 * len(remaining_tables)


@pytest.mark.clause("SN-2.1", "SN-6.4", "FM-3.12", "FM-3.13")
@without_source_table
@each_protocol
@each_ip_version
def test_flows_of_hw_offload_table_are_mirrored(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, protocol: int, version: int
) -> None:
    """Flows of a table with hardware offload are mirrored, and the value matches the wire."""
    netdevsim.replace_veth_pairs(private_router, cleanup)
    _add_source_table(private_router, _DEVICES + "flags offload;")
    assert (
        flowtable.get_flowtable("made", "ft", private_router.namespace).flags
        == flowtable.HW_OFFLOAD
    )
    conn = connect(private_router, protocol, version, cleanup)
    flow = conn.wait_offloaded()
    with tx_capture.capture_tx(private_router.namespace) as sent:
        conn.exchange(_PAYLOAD)
        for key, device in ((flow.original, private_router.wan), (flow.reply, private_router.lan)):
            value = bpf.lookup(private_flowmap, key)
            # A table with hardware offload writes the Ethernet header itself.
            assert (value.xmit_type, value.oifindex) == (uapi.XMIT_DIRECT, device.ifindex)
            seen = {
                headers_from_value.headers_from_frame(packet)
                for packet in sent(device.device, _PAYLOAD)
            }
            assert seen == {headers_from_value.headers_from_value(value, key.l3proto)}

    conntrack.delete(conn.tuple, private_router.namespace)
    assert _lookup_directions(private_flowmap, flow) == [None, None]
    # A work item removes the flow from the hardware first.
    wait_for("the entry to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)


@pytest.mark.clause("SN-1.1")
@without_source_table
def test_hw_offload_table_on_unsupported_devices_is_refused(private_router: Router) -> None:
    """A table with hardware offload is refused on devices without it; a snoop table is not."""
    with pytest.raises(nftables.RulesetError, match="not supported"):
        _add_source_table(private_router, _DEVICES + "flags offload;")
    # A snoop table requires nothing of its devices.
    flowtable.create_snoop_table("spy", "all", private_router.namespace, devices=["r0", "r1"])
