# SPDX-License-Identifier: GPL-2.0-only
"""Attaching an XDP program to a device makes the routes of its flows stale."""

import functools
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
from fixtures.guest.core.polling import wait_for
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection, Flow


def _is_found_again(fd: int, conn: Connection, flow: Flow) -> bool:
    conn.exchange()
    return all(bpf.lookup_or_none(fd, key) for key in flow.keys)


@pytest.mark.clause("FM-4.9")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "mode", [XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE], ids=["generic", "native"]
)
def test_flow_is_missed_after_xdp_attach_until_next_packets(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    mode: int,
    version: int,
) -> None:
    """The direction that leaves by the device is missed at once; the next packets bring it back."""
    program = load_bpf("xdp_flow_lookup", private_flowmap)
    for direction, port in enumerate((private_router.wan, private_router.lan)):
        protocol = (IPPROTO_TCP, IPPROTO_UDP)[direction]
        conn = open_private_connection(protocol, version, server_port=7300 + direction)
        flow = conn.wait_offloaded()
        assert all(bpf.lookup_or_none(private_flowmap, key) for key in flow.keys)
        with ExitStack() as attached:
            program.attach_xdp(
                "xdp_flow_lookup", port.ifindex, private_router.namespace, attached, mode
            )
            assert bpf.lookup_or_none(private_flowmap, flow.keys[direction]) is None, port.device
            back = functools.partial(_is_found_again, private_flowmap, conn, flow)
            wait_for("the flow to be offloaded again", back)
