# SPDX-License-Identifier: GPL-2.0-only
"""Flows of act_ct of each kind: their values in both directions, and each way in which they end.

The kinds are TCP and UDP, IPv4 and IPv6, without translation and with act_ct's own SNAT.
"""

import errno
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, netlink, netns, rtnetlink, tc
from fixtures.guest.net.conntrack import ConntrackEntry
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, router_config_id
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import SNAT_ADDRESSES, Router, RouterConfig
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    connect,
    key_from_tuple,
)
from selftests.snoop import flow_kinds
from selftests.snoop.flow_kinds import AllReaders, NamedFlow

ZONE = 4
_NO_DEVICE = 0

pytestmark = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)


def _add_filters(namespace: str) -> None:
    """Add act_ct on both devices; it translates connections to `flow_kinds.SNAT_PORT` and above."""
    for device in ("r0", "r1"):
        tc.run(f"qdisc add dev {device} clsact", namespace)
    prio = 0
    for version, protocol in ((4, "ip"), (6, "ipv6")):
        for transport in ("tcp", "udp"):
            prio += 1
            # The zone is last because tc(8) requires a word behind "nat" and its address.
            tc.run(
                f"filter add dev r0 ingress prio {prio} protocol {protocol} flower "
                f"ip_proto {transport} dst_port {flow_kinds.SNAT_PORT}-{flow_kinds.SNAT_PORT + 99} "
                f"action ct commit nat src addr {SNAT_ADDRESSES[version]} zone {ZONE}",
                namespace,
            )
    tc.run(f"filter add dev r0 ingress prio 9 matchall action ct commit zone {ZONE}", namespace)
    tc.run(f"filter add dev r1 ingress prio 9 matchall action ct nat zone {ZONE}", namespace)


def _entry(conn: Connection) -> ConntrackEntry | None:
    return conntrack.find(conn.tuple, conn.router.namespace, zone=ZONE)


def _serves(conn: Connection) -> bool:
    entry = _entry(conn)
    return entry is not None and entry.offloaded


def _offload_all(router: Router, cleanup: ExitStack) -> list[NamedFlow]:
    """Open one connection of each kind, and wait until act_ct has offloaded each."""
    _add_filters(router.namespace)
    conns = flow_kinds.connect_all(router, cleanup, translated=(False,))
    more = _connect_translated(router, cleanup)
    flows = []
    for name, conn in (conns | more).items():

        def offloaded() -> bool:
            conn.exchange()  # noqa: B023
            return _serves(conn)  # noqa: B023

        wait_for(f"act_ct to offload {name}", offloaded)
        entry = _entry(conn)
        assert entry is not None
        assert bool(entry.original.reversed() != entry.reply) == name.endswith("nat"), name
        original, reply = (
            key_from_tuple(side, _NO_DEVICE, zone=ZONE) for side in (entry.original, entry.reply)
        )
        flows.append(NamedFlow(name, conn, (original, reply)))
    return flows


def _connect_translated(router: Router, cleanup: ExitStack) -> dict[str, Connection]:
    return {
        f"{name}-ipv{version}-nat": connect(
            router, protocol, version, cleanup, server_port=flow_kinds.SNAT_PORT + version
        )
        for name, protocol in (("tcp", IPPROTO_TCP), ("udp", IPPROTO_UDP))
        for version in (4, 6)
    }


@pytest.mark.clause("SN-2.3", "SN-4.1", "SN-4.2", "FM-3.11", "FM-3.12", "FM-3.18", "FM-3.19")
def test_act_ct_value_of_each_kind_matches_conntrack_in_both_directions(
    private_router: Router, private_flowmap: int, make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """Both directions' values have conntrack's translation, id, mark and zone, and no device.

    The values are the same in a map that mirrored the flows and in one that was created later.
    """
    flows = _offload_all(private_router, cleanup)
    later = make_flowmap(private_router.namespace)
    AllReaders((private_flowmap, later)).assert_exactly(flows)
    for flow in flows:
        entry = _entry(flow.conn)
        assert entry is not None
        translated = (entry.reply.reversed(), entry.original.reversed())
        for direction, (key, leaves) in enumerate(zip(flow.keys, translated, strict=True)):
            what = f"{flow.name}, direction {direction}"
            value = bpf.lookup(private_flowmap, key)
            family = key.l3proto
            assert (value.dir, value.xmit_type) == (direction, uapi.XMIT_TC), what
            assert (
                uapi.format_address(value.src, family),
                value.ports.source,
                uapi.format_address(value.dst, family),
                value.ports.destination,
            ) == (
                leaves.source,
                leaves.source_port,
                leaves.destination,
                leaves.destination_port,
            ), what
            is_nat = flow.name.endswith("nat")
            assert value.flags == (uapi.F_SNAT if is_nat else 0), what
            assert (value.ct_id, value.ct_mark, value.ct_zone) == (
                entry.ct_id,
                entry.mark,
                ZONE,
            ), what
            # act_ct sends a packet on through tc, so device and addresses are not the flow's.
            assert value.oifindex == 0, what
            assert bytes(value.h_source) + bytes(value.h_dest) == bytes(12), what
            assert bytes(value.encap) == bytes(8), what
            assert (value.tun_l4proto, bytes(value.tun_src), bytes(value.tun_dst)) == (
                0,
                bytes(16),
                bytes(16),
            ), what
            assert value.expires > 0, what
            other = bpf.lookup(later, key)
            other.expires = value.expires
            assert bytes(other) == bytes(value), what
    assert len({bpf.lookup(later, flow.keys[0]).ct_id for flow in flows}) == len(flows)


ENDS: dict[str, Callable[[Router], None]] = {
    "conntrack-flush": lambda router: conntrack.flush(router.namespace),
    "filters-deleted": lambda router: _delete_qdiscs(router),
    "devices-deleted": lambda router: _delete_devices(router),
}


def _delete_qdiscs(router: Router) -> None:
    for device in ("r0", "r1"):
        tc.run(f"qdisc del dev {device} clsact", router.namespace)


def _delete_devices(router: Router) -> None:
    for port in (router.wan, router.lan):
        message = rtnetlink.delete_link(port.ifindex)
        netlink.transact(netlink.NETLINK_ROUTE, [message], router.namespace)


@pytest.mark.clause("SN-6.4", "SN-6.7", "SN-6.9")
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_act_ct_flows_of_each_kind_miss_after_common_end(
    private_router: Router,
    private_flowmap: int,
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
    end: Callable[[Router], None],
) -> None:
    """What ends all flows of act_ct makes those of each kind miss, and frees their entries.

    A flush does at once; act_ct frees a table from a work item, after a grace period.
    """
    flows = _offload_all(private_router, cleanup)
    readers = AllReaders((private_flowmap, make_flowmap(private_router.namespace)))
    readers.assert_exactly(flows)
    end(private_router)
    if end is not ENDS["conntrack-flush"]:
        wait_for("act_ct to free its table", lambda: not any(_serves(flow.conn) for flow in flows))
        readers.wait_freed()
    readers.assert_exactly([], gone=flows)
    readers.wait_freed()


@pytest.mark.clause("SN-6.4")
def test_act_ct_flows_of_each_kind_miss_one_by_one_after_conntrack_delete(
    private_router: Router, private_flowmap: int, make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """Each deleted connection is a miss at once; the flows of all other kinds stay."""
    flows = _offload_all(private_router, cleanup)
    readers = AllReaders((private_flowmap, make_flowmap(private_router.namespace)))
    left = list(flows)
    for flow in flows:
        with expect_errno(errno.ENOENT):
            # The connection is in the zone only.
            conntrack.delete(flow.conn.tuple, private_router.namespace)
        conntrack.delete(flow.conn.tuple, private_router.namespace, zone=ZONE)
        left.remove(flow)
        readers.assert_exactly(left, gone=[flow])
    readers.wait_freed()


@pytest.mark.clause("SN-6.2")
@pytest.mark.parametrize("end", ["client-fin", "server-fin", "client-rst", "server-rst"])
def test_act_ct_tcp_flows_of_each_kind_miss_after_close(
    private_router: Router,
    private_flowmap: int,
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
    end: str,
) -> None:
    """FIN or RST ends act_ct's TCP flows; the UDP flows stay.

    Conntrack says when act_ct has ended a flow.
    """
    flows = _offload_all(private_router, cleanup)
    readers = AllReaders((private_flowmap, make_flowmap(private_router.namespace)))
    closing = [flow for flow in flows if flow.conn.tuple.protocol == IPPROTO_TCP]
    others = [flow for flow in flows if flow not in closing]
    for flow in closing:
        {
            "client-fin": flow.conn.client_fin,
            "server-fin": flow.conn.server.close,
            "client-rst": flow.conn.client_rst,
            "server-rst": flow.conn.server_rst,
        }[end]()
    wait_for("act_ct to end the flows", lambda: not any(_serves(flow.conn) for flow in closing))
    for flow in others:
        flow.conn.exchange()
    readers.assert_exactly(others, gone=closing)
    readers.wait_freed(len(others))


@pytest.mark.clause("SN-6.3")
def test_act_ct_flows_of_each_kind_miss_after_expiry(
    private_router: Router, private_flowmap: int, make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """Flows of act_ct that expire are misses, whatever their kind."""
    flows = _offload_all(private_router, cleanup)
    readers = AllReaders((private_flowmap, make_flowmap(private_router.namespace)))
    readers.assert_exactly(flows)
    netns.set_sysctls(
        private_router.namespace,
        {f"netfilter/nf_flowtable_{name}_timeout": 1 for name in ("tcp", "udp")},
    )
    for flow in flows:
        flow.conn.exchange()  # the flow takes the new timeout
    wait_for("act_ct to end the flows", lambda: not any(_serves(flow.conn) for flow in flows))
    readers.assert_exactly([], gone=flows)
    readers.wait_freed()


@pytest.mark.clause("SN-6.8", "FM-2.3")
@pytest.mark.no_capture
@pytest.mark.usefixtures("private_router")
def test_act_ct_flows_of_each_kind_miss_after_netns_exit(make_flowmap: MakeFlowmap) -> None:
    """After the exit of the netns a map is empty, and misses act_ct's flows of each kind."""
    with ExitStack() as stack:
        config = RouterConfig(tables="none", netns_prefix="exit")
        router = client_router_server.build_router(config, stack)
        fd = make_flowmap(router.namespace)
        with ExitStack() as sockets:
            flows = _offload_all(router, sockets)
            readers = AllReaders((fd,))
            readers.assert_exactly(flows)
            netns.remove(router.namespace)
            wait_for("the map to be empty", lambda: not list(bpf.iterate_keys(fd)))
            readers.assert_exactly([], gone=flows)
            readers.wait_freed()
