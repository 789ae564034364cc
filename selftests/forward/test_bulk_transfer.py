# SPDX-License-Identifier: GPL-2.0-only
"""Bulk TCP transfers forwarded by XDP: over lossy links and across reconfiguration."""

import random
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netns, nftables, tc
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.runtime.hypothesis_support import iterations_scale, scaled_examples
from fixtures.guest.topology.client_router_server import NFT_TABLE, Router, RouterConfig, ruleset
from fixtures.guest.traffic.bulk_transfer import BulkTransfer
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

_MIB = 1 << 20

NETEM = {
    "loss": "loss 1%",
    "reorder": "delay 2ms reorder 25% 50%",
    "duplicate": "duplicate 2%",
    "all": "delay 1ms loss 0.5% reorder 10% 50% duplicate 1%",
}


@pytest.mark.clause("FM-3.20", "FM-4.7")
@pytest.mark.deadline(120)
@pytest.mark.parametrize("netem", NETEM)
@pytest.mark.parametrize(
    "router", [RouterConfig(), RouterConfig(nat="snat+dnat")], ids=router_config_id, indirect=True
)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_tcp_transfer_over_netem_arrives_intact(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    cleanup: ExitStack,
    netem: str,
    version: int,
) -> None:
    """A TCP transfer forwarded by XDP arrives intact despite loss, reordering and duplicates."""
    forwarder = XdpForwarder(router, flowmap, cleanup)
    conn = open_connection(IPPROTO_TCP, version)
    _check_transfer(conn, forwarder, netem, 2 * _MIB * iterations_scale())


@pytest.mark.clause("FM-3.20", "FM-4.7")
@pytest.mark.deadline(300)
def test_long_tcp_transfer_over_netem_arrives_intact(
    router: Router, flowmap: int, open_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """100 MB (less on kernels slower than plain emulation) over a lossy link arrive intact."""
    forwarder = XdpForwarder(router, flowmap, cleanup)
    _check_transfer(
        open_connection(IPPROTO_TCP, 4), forwarder, "all", scaled_examples(100) * 1_000_000
    )


def _check_transfer(conn: Connection, forwarder: XdpForwarder, netem: str, size: int) -> None:
    """Send ``size`` bytes through netem; check that they arrive intact and through XDP."""
    conn.wait_offloaded()
    for host in (conn.router.client, conn.router.server):
        tc.run(f"qdisc add dev {host.device} root netem {NETEM[netem]}", host.namespace)
    before = forwarder.result_counts()
    assert BulkTransfer(conn, size, seed=size).received_intact()
    counted = forwarder.result_counts() - before
    # XDP forwards nearly all of it and passes only few packets to the stack.
    assert counted[ForwardResult.FORWARDED] > size // 1500
    assert counted[ForwardResult.NO_FLOW] < counted[ForwardResult.FORWARDED] // 10
    assert counted[ForwardResult.MALFORMED] == counted[ForwardResult.BAD_TCP_FLAGS] == 0


@pytest.mark.clause("FM-3.20", "FM-4.7")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_tcp_transfer_by_native_xdp_arrives_intact(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
    version: int,
) -> None:
    """A TCP transfer forwarded by native XDP arrives intact."""
    forwarder = XdpForwarder(private_router, private_flowmap, cleanup, native=True)
    conn = open_private_connection(IPPROTO_TCP, version)
    conn.wait_offloaded()
    before = forwarder.result_counts()
    size = 1 << 20
    assert BulkTransfer(conn, size, seed=version).received_intact()
    counted = forwarder.result_counts() - before
    assert counted[ForwardResult.FORWARDED] > size // 1500
    assert counted[ForwardResult.OUT_OF_WINDOW] == counted[ForwardResult.MALFORMED] == 0


def _reload_ruleset(router: Router, _forwarder: XdpForwarder) -> None:
    """Delete and load the router's table ``inet fw`` in one transaction."""
    nftables.run(f"delete table inet {NFT_TABLE}\n{ruleset(router.config)}", router.namespace)


def _flush_conntrack(router: Router, _forwarder: XdpForwarder) -> None:
    """Delete all conntrack entries, and so end all flows."""
    conntrack.flush(router.namespace)


def _delete_nft_table(router: Router, _forwarder: XdpForwarder) -> None:
    """Delete the nft table with the flowtable."""
    flowtable.drop_table(NFT_TABLE, router.namespace)


def _replace_xdp_program(_router: Router, forwarder: XdpForwarder) -> None:
    """Attach a fresh copy of the XDP program over the running one."""
    forwarder.reattach()


@pytest.mark.clause("FM-3.20", "SN-6.4", "SN-6.7")
@pytest.mark.deadline(60)
@pytest.mark.parametrize(
    "change",
    [_reload_ruleset, _flush_conntrack, _delete_nft_table, _replace_xdp_program],
    ids=["ruleset-reload", "conntrack-flush", "table-delete", "xdp-replace"],
)
def test_tcp_transfer_during_reconfiguration_arrives_intact(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
    change: Callable[[Router, XdpForwarder], None],
) -> None:
    """A transfer during which rules, conntrack or the XDP program change arrives intact.

    Afterwards XDP forwards the connection again, except without the flowtable.
    """
    forwarder = XdpForwarder(private_router, private_flowmap, cleanup)
    conn = open_private_connection(IPPROTO_TCP, 4)
    conn.wait_offloaded()
    before = forwarder.result_counts()

    def reconfigure_midway() -> None:
        assert (forwarder.result_counts() - before)[ForwardResult.FORWARDED]
        change(private_router, forwarder)

    assert BulkTransfer(conn, 2 * _MIB, seed=1).received_intact(reconfigure_midway)
    if change is _delete_nft_table:
        return

    def forwarded_again() -> bool:
        before = forwarder.result_counts()
        conn.exchange()
        return (forwarder.result_counts() - before)[ForwardResult.FORWARDED] >= 2

    wait_for("XDP to forward the connection again", forwarded_again)


@pytest.mark.clause("SN-6.3")
@pytest.mark.parametrize(
    ("protocol", "timeout"), [(IPPROTO_TCP, "tcp"), (IPPROTO_UDP, "udp")], ids=["tcp", "udp"]
)
def test_connection_idle_past_flow_timeout_is_reoffloaded(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
    protocol: int,
    timeout: str,
) -> None:
    """After the flow timeout the stack forwards the idle connection, and later XDP again."""
    forwarder = XdpForwarder(private_router, private_flowmap, cleanup)
    conn = open_private_connection(protocol, 4)
    for _ in range(2):
        conn.wait_offloaded()
        netns.set_sysctls(
            private_router.namespace, {f"netfilter/nf_flowtable_{timeout}_timeout": 1}
        )
        conn.exchange()
        # Forwarding sets the flow's expiry, so it is now at most one second away.
        wait_for(
            "the flow to expire and conntrack to clear IPS_OFFLOAD",
            lambda: (e := conn.conntrack_entry()) and not e.offloaded,
            10,
        )
        before = forwarder.result_counts()
        conn.exchange()
        assert (forwarder.result_counts() - before)[ForwardResult.NO_FLOW]
        netns.set_sysctls(
            private_router.namespace, {f"netfilter/nf_flowtable_{timeout}_timeout": 30}
        )
    conn.wait_offloaded()
    before = forwarder.result_counts()
    conn.exchange()
    assert (forwarder.result_counts() - before)[ForwardResult.FORWARDED] >= 2


@pytest.mark.clause("FM-3.20", "FM-4.7", "RT-3.1")
@pytest.mark.soak
@pytest.mark.deadline(60)
def test_connection_churn_loses_no_data(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
) -> None:
    """Connections that come, transfer and end in random ways lose no data."""
    forwarder = XdpForwarder(private_router, private_flowmap, cleanup)
    tcp_ends = [Connection.client_fin, Connection.client_rst, Connection.server_rst]
    rounds = 6 * iterations_scale()
    for number in range(rounds):
        version = random.choice((4, 6))
        conn = open_private_connection(IPPROTO_TCP, version, server_port=7100 + number)
        conn.wait_offloaded()
        assert BulkTransfer(conn, _MIB // 4, seed=number).received_intact()
        other = open_private_connection(IPPROTO_UDP, version, server_port=7100 + number)
        other.wait_offloaded()
        other.exchange()
        random.choice(tcp_ends)(conn)
        conntrack.delete(other.tuple, private_router.namespace)
        other.client.shutdown(socket.SHUT_RDWR)
    counted = forwarder.result_counts()
    print({fate.name: count for fate, count in counted.items()})
    assert counted[ForwardResult.FORWARDED] > rounds * _MIB // 4 // 1500
    assert (
        counted[ForwardResult.OUT_OF_WINDOW]
        == counted[ForwardResult.MALFORMED]
        == counted[ForwardResult.BAD_TCP_FLAGS]
        == 0
    )
