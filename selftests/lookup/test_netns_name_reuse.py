# SPDX-License-Identifier: GPL-2.0-only
"""A map belongs to a netns, not to the netns' name, devices or addresses."""

from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Flow,
    close_without_shutdown,
    connect,
)


def _offload(router: Router, cleanup: ExitStack) -> Flow:
    conn = connect(router, IPPROTO_UDP, 4, cleanup, client_port=40777)
    flow = conn.wait_offloaded()
    # An open socket would keep the hosts' netns alive; closing a UDP socket ends no flow.
    close_without_shutdown(conn.client, conn.server)
    return flow


@pytest.mark.clause("FM-2.1", "FM-2.3", "SN-2.4")
@pytest.mark.usefixtures("flowtable_modules")
@pytest.mark.no_capture
def test_map_of_deleted_netns_stays_empty_when_its_name_is_used_again(
    make_flowmap: MakeFlowmap, load_bpf: LoadBpf, cleanup: ExitStack
) -> None:
    """A netns with the same name, devices and flows follows: the old map stays empty and usable.

    The new netns' own map has its flows, which begin both before and after that map.
    """
    config = RouterConfig(netns_prefix="again")
    with ExitStack() as first:
        router = client_router_server.build_router(config, first)
        old = make_flowmap(router.namespace)
        flow = _offload(router, first)
        assert [bpf.lookup(old, key).dir for key in flow.keys] == [0, 1]
    probe = LookupProbe(load_bpf("lookup_probe", old, "by_tc"), "by_tc")
    # The new netns is there perhaps before the old one has exited.
    router = client_router_server.build_router(config, cleanup)
    same = _offload(router, cleanup)
    assert bytes(same.original) == bytes(flow.original)
    new = make_flowmap(router.namespace)
    other = connect(router, IPPROTO_TCP, 6, cleanup, server_port=7006).wait_offloaded()
    wait_for("the old map to be empty", lambda: bpf.flowmap_entry_count(old) == 0)
    for found in (same, other):
        assert [bpf.lookup(new, key).dir for key in found.keys] == [0, 1]
        assert [bpf.lookup_or_none(old, key) for key in found.keys] == [None, None]
        assert [probe.lookup(key) for key in found.keys] == [None, None]
    assert len(list(bpf.iterate_keys(new))) == 4
    assert list(bpf.iterate_keys(old)) == []
    assert bpf.lookup_batch(old, 4)[0] == []
    assert bpf.map_info(old).type == bpf.flowmap_type()
    assert (bpf.flowmap_entry_count(old), bpf.flowmap_missed_count(old)) == (0, 0)
