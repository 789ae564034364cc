# SPDX-License-Identifier: GPL-2.0-only
"""Flows of a table with hardware offload, on hardware that takes them."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import flow_hardware, ftrace
from fixtures.guest.net import conntrack, netns, nftables
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow

_RULES = 4
"""Rules of a flow: one for each direction, in the driver of each device of the table (r0, r1)."""
_TELL_HARDWARE = ("nf_flow_offload_add", "nf_flow_offload_refresh")
"""The functions that queue work for the driver."""

pytestmark = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.fixture
def hardware_table(private_router: Router, cleanup: ExitStack) -> None:
    """Have hardware, and a table with the offload flag that takes TCP and UDP."""
    cleanup.enter_context(flow_hardware.present())
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
    cleanup.callback(nftables.run, "delete table inet made", private_router.namespace)


def _hw_flags(fd: int, flow: Flow) -> list[int | None]:
    values = [bpf.lookup_or_none(fd, key) for key in flow.keys]
    return [None if value is None else value.flags & uapi.F_HW for value in values]


def _wait_in_hardware(fd: int, conn: Connection, flows: int = 1) -> Flow:
    """Wait until hardware has both directions of a connection, and conntrack says so."""
    flow = conn.wait_offloaded()
    wait_for("the flow's rules", lambda: flow_hardware.rules_added() >= flows * _RULES)
    wait_for("the hardware flag", lambda: _hw_flags(fd, flow) == [uapi.F_HW, uapi.F_HW])
    return flow


@pytest.mark.clause("FM-3.10")
@pytest.mark.usefixtures("hardware_table")
@each_version
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_flow_in_hardware_has_hw_flag(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    protocol: int,
    version: int,
) -> None:
    """Both directions have the flag for every reader, in an older and in a newer map."""
    conn = open_private_connection(protocol, version)
    flow = _wait_in_hardware(private_flowmap, conn)
    newer = make_flowmap(private_router.namespace)
    assert _hw_flags(newer, flow) == [uapi.F_HW, uapi.F_HW]
    probe = LookupProbe(load_bpf("lookup_probe", newer, "by_tc"), "by_tc")
    for key in flow.keys:
        value = probe.lookup(key)
        assert value is not None
        assert value.flags & uapi.F_HW
    # Nothing but the flag tells the flow from one of software.
    assert bpf.lookup(newer, flow.original).flags == uapi.F_HW

    conntrack.delete(conn.tuple, private_router.namespace)
    assert _hw_flags(private_flowmap, flow) == [None, None]
    wait_for("the flow's rules to go", lambda: flow_hardware.rules_deleted() == _RULES)


@pytest.mark.clause("FM-10.5")
@pytest.mark.usefixtures("hardware_table")
@each_version
def test_lookup_of_flow_in_hardware_does_not_tell_hardware(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    version: int,
) -> None:
    """A program's lookup prolongs the flow and calls no function of the offload; a packet does."""
    conn = open_private_connection(IPPROTO_UDP, version)
    flow = _wait_in_hardware(private_flowmap, conn)
    probe = LookupProbe(load_bpf("lookup_probe", private_flowmap, "by_xdp"), "by_xdp")

    def raise_timeout(seconds: int) -> None:
        # From now on a packet, and a program's lookup, move the flow's expiry.
        netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": seconds})

    before = bpf.lookup(private_flowmap, flow.original).expires
    raise_timeout(600)
    with ftrace.count_calls(*_TELL_HARDWARE) as calls:
        assert all(probe.lookup(key) is not None for key in flow.keys)
        assert bpf.lookup(private_flowmap, flow.original).expires > before
        assert calls() == {}
        raise_timeout(1200)
        conn.exchange()
        assert calls()["nf_flow_offload_refresh"] > 0
