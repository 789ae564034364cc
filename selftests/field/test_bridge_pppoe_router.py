# SPDX-License-Identifier: GPL-2.0-only
"""A router at home: LAN ports in a bridge, PPPoE over a VLAN, masquerade."""

from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, router_config_id
from fixtures.guest.topology import home_router
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Flow,
    build_frame,
    connect,
)

at_home = pytest.mark.parametrize(
    "private_router", [home_router.CONFIG], ids=router_config_id, indirect=True
)

_SESSION = 0x1234
_KINDS = [(protocol, version) for protocol in (IPPROTO_TCP, IPPROTO_UDP) for version in (4, 6)]


@pytest.mark.clause("FM-3.7", "FM-4.4", "FM-4.5", "FM-12.1", "SN-4.2")
@at_home
def test_pppoe_over_vlan_is_in_reply_key_and_original_value(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """Keys and values of a router at home hold what is on the wire.

    ::

        client --- r0 in br0 [router] r1 --- VLAN 7 --- PPPoE session --- server

    The original key is on r0, and its value leaves by r1 in the VLAN and the session.  The reply
    key is on r1 with both layers, outermost first, and its value leaves by r0 without them.
    TCP and UDP over IPv4 and IPv6 flow at once; conntrack's OFFLOAD entries are the map's flows.
    """
    router, inside, outside = home_router.build_home_router(
        private_router, cleanup, session=_SESSION
    )
    assert outside.encap == ((7, uapi.ETH_P_8021Q), (_SESSION, uapi.ETH_P_PPP_SES))
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    flows: list[Flow] = []
    for number, (protocol, version) in enumerate(_KINDS):
        conn = connect(router, protocol, version, cleanup, server_port=7000 + number)
        to_server, to_client = oracle.assert_forwarded_as_value(
            conn, private_flowmap, inside, outside
        )
        assert to_server.mtu == to_client.mtu + home_router.MTU - 1500 == home_router.MTU
        assert (to_server.flags, to_client.flags) == (uapi.F_SNAT, uapi.F_SNAT)
        assert (to_server.xmit_type, to_client.xmit_type) == (uapi.XMIT_DIRECT, uapi.XMIT_DIRECT)
        entry = conn.wait_offloaded().entry
        flows.append(oracle.flow_of_entry(entry, inside, outside))
        # The kfunc supports no encapsulation, so it can answer for the original direction only.
        frame = build_frame(router.client, router.lan, conn.tuple)
        found = oracle.lookup_result(both_lookups, frame, inside.ifindex, router.namespace)
        assert found == "both", conn.tuple
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)

    for flow in flows:
        for layers in ((), outside.encap[:1], outside.encap[1:], outside.encap[::-1]):
            other = uapi.Key.from_buffer_copy(flow.reply)
            for number in range(uapi.ENCAP_MAX):
                layer = layers[number] if number < len(layers) else (0, 0)
                other.encap[number].id, other.encap[number].proto = layer
            assert bpf.lookup_or_none(private_flowmap, other) is None, layers


@pytest.mark.clause("SN-2.5")
@at_home
def test_pppoe_over_two_vlans_is_not_offloaded(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """PPPoE over QinQ has three layers, which a flowtable does not support; the map is empty.

    ::

        client --- r0 in br0 [router] r1 --- 802.1ad 100 --- VLAN 7 --- PPPoE session --- server

    The connections pass, no conntrack entry is offloaded, and the map counts no missed flow.
    """
    router, _, _ = home_router.build_home_router(private_router, cleanup, vlans=(100, 7))
    for number, (protocol, version) in enumerate(_KINDS):
        conn = connect(router, protocol, version, cleanup, server_port=7000 + number)
        oracle.assert_not_offloaded(conn, private_flowmap)
