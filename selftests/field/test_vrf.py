# SPDX-License-Identifier: GPL-2.0-only
"""A router whose devices are in a VRF."""

from contextlib import ExitStack

import pytest

from fixtures.guest.net import netlink, netns, nftables, rtnetlink
from fixtures.guest.net.link_kinds import add_vrf
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, router_config_id
from fixtures.guest.pytest_plugin.require_config import require_link_kind
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.topology.settled_links import wait_links_up
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, build_frame, connect

_VRF, _VRF_INDEX, _VRF_TABLE = "red", 901, 10
_KINDS = [(IPPROTO_TCP, 4), (IPPROTO_UDP, 4), (IPPROTO_TCP, 6), (IPPROTO_UDP, 6)]


def _enslave(router: Router) -> None:
    """Put both devices of a router into a VRF."""
    # Enslaving sets a device down and up again, which would remove its IPv6 addresses.
    netns.set_sysctls(router.namespace, {"ipv6/conf/all/keep_addr_on_down": 1})
    messages = [add_vrf(_VRF, _VRF_INDEX, _VRF_TABLE), rtnetlink.set_up(_VRF_INDEX)]
    for port, peer in ((router.lan, router.client), (router.wan, router.server)):
        messages.append(rtnetlink.set_master(port.ifindex, _VRF_INDEX))
        messages += [
            rtnetlink.add_permanent_neigh(port.ifindex, host, peer.mac)
            for host in peer.addresses.values()
        ]
    netlink.transact(netlink.NETLINK_ROUTE, messages, router.namespace)
    wait_links_up(router.namespace, router.lan.ifindex, router.wan.ifindex)


@pytest.mark.clause("FM-3.6", "FM-4.3", "FM-12.1")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
def test_flow_in_vrf_has_keys_on_the_slaves(
    private_router: Router, private_flowmap: int, cleanup: ExitStack, load_bpf: LoadBpf
) -> None:
    """Flows between two devices of a VRF have their keys on these devices, not on the VRF.

    ::

        client --- r0 [router: r0 and r1 in VRF red, masquerade] r1 --- server
    """
    router = private_router
    require_link_kind("vrf", "CONFIG_NET_VRF", router.namespace)
    _enslave(router)
    nftables.run(
        """
        flush ruleset
        table inet fw {
            flowtable ft { hook ingress priority 0; devices = { r0, r1 }; }
            chain forward {
                type filter hook forward priority 0; policy accept;
                meta l4proto { tcp, udp } ct state established flow add @ft
            }
            chain post {
                type nat hook postrouting priority 100;
                oifname "r1" masquerade
            }
        }
        """,
        router.namespace,
    )
    inside, outside = port_of(router.lan), port_of(router.wan)
    both_lookups = load_bpf("xdp_both_lookups", private_flowmap)
    flows = []
    for number, (protocol, version) in enumerate(_KINDS):
        conn = connect(router, protocol, version, cleanup, server_port=7000 + number)
        oracle.assert_forwarded_as_value(conn, private_flowmap, inside, outside)
        frame = build_frame(router.client, router.lan, conn.tuple)
        found = oracle.lookup_result(both_lookups, frame, inside.ifindex, router.namespace)
        assert found == "both", conn.tuple
        flows.append(oracle.flow_of_entry(conn.wait_offloaded().entry, inside, outside))
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)
