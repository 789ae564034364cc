# SPDX-License-Identifier: GPL-2.0-only
"""A program's lookup prolongs each kind of flow in each direction, and sees the new expiry."""

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

_SECOND = 10**9


@pytest.mark.clause("FM-10.1", "FM-3.17")
@pytest.mark.parametrize("direction", [0, 1], ids=["original", "reply"])
def test_prog_lookup_moves_expiry_and_returns_it(
    flowmap: int, open_connection: OpenConnection, load_bpf: LoadBpf, direction: int
) -> None:
    """A lookup in one direction alone moves the flow's timeout by at least a second.

    The value that the program gets has the expiry as of its own lookup, and the other direction
    has the same: the timeout is the flow's.
    """
    probe = LookupProbe(load_bpf("lookup_probe", flowmap, "by_xdp"), "by_xdp")
    flows = {
        (protocol, version): open_connection(protocol, version).wait_offloaded()
        for protocol in (IPPROTO_TCP, IPPROTO_UDP)
        for version in (4, 6)
    }
    before = {kind: bpf.lookup(flowmap, flow.original).expires for kind, flow in flows.items()}

    def moved() -> bool:
        # A lookup within a second of the last refresh moves nothing.
        for kind, flow in flows.items():
            value = probe.lookup(flow.keys[direction])
            assert value is not None, kind
            seen = bpf.lookup(flowmap, flow.keys[direction]).expires
            assert value.expires == seen, f"{kind}: the program's value is not of its lookup"
        now = {kind: bpf.lookup(flowmap, flow.original).expires for kind, flow in flows.items()}
        return all(now[kind] > before[kind] + _SECOND for kind in flows)

    wait_for("each flow's expiry to move", moved)
