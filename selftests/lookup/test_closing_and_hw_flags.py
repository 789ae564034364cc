# SPDX-License-Identifier: GPL-2.0-only
"""Flags of a value as of the last lookup: the connection is closing, hardware has the flow.

A FIN or RST only marks an nft flow as closing: its table forwards it until it expires or a SYN
reopens the connection (contract, SN-6).
"""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables, tc
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology import netdevsim
from fixtures.guest.topology.client_router_server import Router, RouterConfig, build_router
from fixtures.guest.traffic import act_ct_offload, flow_teardown
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    Flow,
    connect,
)

STATE_FLAGS = uapi.F_CLOSING | uapi.F_HW
CLOSING_ACTIONS = [
    flow_teardown.client_fin,
    flow_teardown.server_fin,
    flow_teardown.client_rst,
    flow_teardown.server_rst,
]

each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def _state_flags(fd: int, flow: Flow) -> list[int | None]:
    """Return the flags of each direction that change during a flow's life; None for a miss."""
    values = [bpf.lookup_or_none(fd, key) for key in flow.keys]
    return [None if value is None else value.flags & STATE_FLAGS for value in values]


def _wait_closing(fd: int, flow: Flow) -> None:
    wait_for(
        "both directions to be marked as closing",
        lambda: _state_flags(fd, flow) == [uapi.F_CLOSING, uapi.F_CLOSING],
    )


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("FM-3.10", "SN-6.2")
@each_version
@pytest.mark.parametrize(
    "action", CLOSING_ACTIONS, ids=lambda action: action.__name__.replace("_", "-")
)
def test_value_after_fin_or_rst_has_closing_flag(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    action: Callable[[Connection, Router], None],
    version: int,
) -> None:
    """A FIN or RST from either end sets the flag in both directions, for every reader.

    The map shows it as of the lookup: the values were read before the connection began to close.
    """
    conn = open_connection(IPPROTO_TCP, version)
    flow = conn.wait_offloaded()
    probe = LookupProbe(load_bpf("lookup_probe", flowmap, "by_xdp"), "by_xdp")
    assert _state_flags(flowmap, flow) == [0, 0]
    assert all(probe.lookup(key) is not None for key in flow.keys)

    action(conn, router)
    _wait_closing(flowmap, flow)
    for key in flow.keys:
        value = probe.lookup(key)
        assert value is not None
        assert value.flags & STATE_FLAGS == uapi.F_CLOSING
    # A map that is created now has the flow as it is now.
    assert _state_flags(make_flowmap(router.namespace), flow) == [uapi.F_CLOSING, uapi.F_CLOSING]


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("FM-3.9", "FM-3.10")
@each_version
@pytest.mark.parametrize("nat", ["masquerade", "dnat"])
def test_closing_flag_leaves_nat_flags(
    make_flowmap: MakeFlowmap,
    cleanup: ExitStack,
    version: int,
    nat: str,
) -> None:
    """The flags of NAT stay as they are when the flow is marked as closing."""
    router = build_router(RouterConfig(nat=nat, netns_prefix="nat"), cleanup)
    fd = make_flowmap(router.namespace)
    conn = connect(router, IPPROTO_TCP, version, cleanup)
    flow = conn.wait_offloaded()
    expected = uapi.F_SNAT if nat == "masquerade" else uapi.F_DNAT
    assert [bpf.lookup(fd, key).flags for key in flow.keys] == [expected] * 2
    conn.client_fin()
    _wait_closing(fd, flow)
    assert [bpf.lookup(fd, key).flags for key in flow.keys] == [expected | uapi.F_CLOSING] * 2


@pytest.mark.clause("FM-3.10")
@each_version
def test_value_of_open_connection_has_no_closing_flag(
    flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """Data in both directions does not set the flag, for TCP or UDP."""
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        conn = open_connection(protocol, version, server_port=7000 + protocol)
        flow = conn.wait_offloaded()
        for _ in range(3):
            conn.exchange()
        assert _state_flags(flowmap, flow) == [0, 0]


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("FM-3.10")
@each_version
def test_closing_flag_of_one_connection_leaves_others(
    flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """Only the connection that is closing has the flag."""
    first = open_connection(IPPROTO_TCP, version, server_port=7001)
    second = open_connection(IPPROTO_TCP, version, server_port=7002)
    flows = [conn.wait_offloaded() for conn in (first, second)]
    first.client_fin()
    _wait_closing(flowmap, flows[0])
    assert _state_flags(flowmap, flows[1]) == [0, 0]


@pytest.mark.flow_table_has("closing")
@pytest.mark.clause("FM-3.10")
@each_version
def test_next_connection_on_same_ports_has_no_closing_flag(
    flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """The flow of the next connection with the same tuple has no flag."""
    first = open_connection(IPPROTO_TCP, version)
    flow = first.wait_offloaded()
    first.client_rst()
    _wait_closing(flowmap, flow)
    first.server_rst()
    conntrack.delete(first.tuple, first.router.namespace)
    again = open_connection(IPPROTO_TCP, version, client_port=first.tuple.source_port)
    assert again.tuple == first.tuple
    assert list(map(bytes, again.wait_offloaded().keys)) == list(map(bytes, flow.keys))
    assert _state_flags(flowmap, flow) == [0, 0]


@pytest.mark.clause("FM-3.10")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
def test_flow_that_hardware_refused_has_no_hw_flag(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
) -> None:
    """A flow of a table with hardware offload that software forwards has no hardware flag.

    netdevsim accepts the table's binding, and offloads no flow.
    """
    netdevsim.replace_veth_pairs(private_router, cleanup)
    nftables.run(
        """
        table inet made {
            flowtable ft { hook ingress priority 0; devices = { r0, r1 }; flags offload; }
            chain forward {
                type filter hook forward priority 0;
                meta l4proto { tcp, udp } ct state established flow add @ft
            }
        }
        """,
        private_router.namespace,
    )
    conn = open_private_connection(IPPROTO_UDP, 4)
    flow = conn.wait_offloaded()
    conn.exchange()
    assert _state_flags(private_flowmap, flow) == [0, 0]


@pytest.mark.clause("FM-3.10")
@each_version
def test_flow_without_hardware_table_has_no_hw_flag(
    flowmap: int, open_connection: OpenConnection, version: int
) -> None:
    """A flow of a table without hardware offload has no hardware flag."""
    flow = open_connection(IPPROTO_UDP, version).wait_offloaded()
    assert _state_flags(flowmap, flow) == [0, 0]


@pytest.mark.clause("FM-3.10", "SN-2.3")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
@each_version
def test_act_ct_flow_on_devices_without_offload_has_no_hw_flag(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    version: int,
) -> None:
    """An act_ct flow has no hardware flag on devices that cannot offload it.

    act_ct's tables ask for hardware offload of every flow.
    """
    tc.add_act_ct(["r0", "r1"], act_ct_offload.ZONE, private_router.namespace)
    keys = act_ct_offload.wait_offloaded(open_private_connection(IPPROTO_UDP, version))
    values = [bpf.lookup(private_flowmap, key) for key in keys]
    assert [value.flags & STATE_FLAGS for value in values] == [0, 0]
