# SPDX-License-Identifier: GPL-2.0-only
"""A flow that is marked as closing is prolonged by a program's lookup, as by a forwarded packet.

Its source table forwards it until it expires or a SYN reopens the connection, so the map says what
happens to its packets until then.
"""

from collections.abc import Callable

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import flow_teardown
from fixtures.guest.traffic.connections import IPPROTO_TCP, Connection

_SECOND = 10**9
ACTIONS: dict[str, Callable[[Connection, Router], None]] = {
    "client-fin": flow_teardown.client_fin,
    "server-rst": flow_teardown.server_rst,
}


@pytest.mark.clause("FM-10.1", "FM-10.2", "FM-10.3", "FM-3.17", "SN-6.2")
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("direction", [0, 1], ids=["original", "reply"])
def test_closing_flow_is_prolonged_by_program_only(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    action: str,
    direction: int,
) -> None:
    """Lookups in an active map move the expiry of a closing flow; others leave it as it is.

    The flag for closing flows stays.
    """
    passive = make_flowmap(router.namespace, map_extra=uapi.PASSIVE)
    observer = LookupProbe(load_bpf("lookup_probe", passive, "by_xdp"), "by_xdp")
    user = LookupProbe(load_bpf("lookup_probe", flowmap, "by_tc"), "by_tc")
    conns = [open_connection(IPPROTO_TCP, version) for version in (4, 6)]
    flows = [conn.wait_offloaded() for conn in conns]
    for conn in conns:
        ACTIONS[action](conn, router)
    for flow in flows:
        wait_for(
            "the flow to be marked as closing",
            lambda: bpf.lookup(flowmap, flow.original).flags & uapi.F_CLOSING,  # noqa: B023
        )
    keys = [flow.keys[direction] for flow in flows]

    def expiries(fd: int) -> list[int]:
        return [int(bpf.lookup(fd, key).expires) for key in keys]

    before = expiries(passive)
    for key in keys:
        seen = observer.lookup(key)
        assert seen is not None
        assert seen.flags & uapi.F_CLOSING
    assert expiries(passive) == before

    def prolonged() -> bool:
        values = [user.lookup(key) for key in keys]
        assert all(value is not None and value.flags & uapi.F_CLOSING for value in values)
        moved = [now - then > _SECOND for now, then in zip(expiries(passive), before, strict=True)]
        return all(moved)

    wait_for("the expiry of each closing flow to move", prolonged)
    for flow in flows:
        for key in flow.keys:
            assert bpf.lookup(flowmap, key).flags & uapi.F_CLOSING
