# SPDX-License-Identifier: GPL-2.0-only
"""Unload and reload of nf_flow_table itself, in a namespace that had a flow map before.

The namespace outlives the module, so the module must not find what its earlier load left there.
"""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import modules
from fixtures.guest.net import nftables
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import NFT_TABLE, Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow

_RELOADED = (
    modules.FLOWTABLE_INET_MODULE,
    modules.NFT_FLOW_OFFLOAD_MODULE,
    modules.FLOWMAP_MODULE,
)


def _unload_with_holders(name: str) -> None:
    """Unload a module, and first the modules that use it, such as act_ct and the flow map's."""
    for holder in modules.holders(name):
        _unload_with_holders(holder)
    # nf_tables and the map free what they hold in work items.
    modules.wait_until_unreferenced(name)
    modules.unload(name)


def _assert_found(fd: int, flow: Flow) -> None:
    for direction, key in enumerate(flow.keys):
        assert bpf.lookup(fd, key).dir == direction


@pytest.mark.clause("MM-6.3", "SN-3.1", "SN-3.4")
def test_flowmap_after_flowtable_module_reload_mirrors_flows(
    private_router: Router, open_private_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """After a reload of nf_flow_table a new map has the flows from before and after its creation.

    All maps of the namespace were freed before the unload.
    """
    namespace = private_router.namespace
    for name in _RELOADED:
        cleanup.callback(modules.modprobe, name)
    first = open_private_connection(IPPROTO_UDP, 4)
    with bpf.open_flowmap(namespace) as fd:
        _assert_found(fd, first.wait_offloaded())
    nftables.run(f"delete table inet {NFT_TABLE}", namespace)
    _unload_with_holders(modules.FLOWTABLE_MODULE)
    assert not modules.loaded(modules.FLOWTABLE_MODULE)

    for name in _RELOADED:
        modules.modprobe(name)
    nftables.run(client_router_server.ruleset(private_router.config), namespace)
    existing = first.wait_offloaded()
    with bpf.open_flowmap(namespace) as fd:
        _assert_found(fd, existing)
        _assert_found(fd, open_private_connection(IPPROTO_UDP, 6).wait_offloaded())
        assert bpf.flowmap_missed_count(fd) == 0
