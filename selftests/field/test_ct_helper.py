# SPDX-License-Identifier: GPL-2.0-only
"""``ct helper``: FTP control connections stay with conntrack, their data connections do not."""

from contextlib import ExitStack

import pytest

from fixtures.guest.net import conntrack, nftables
from fixtures.guest.pytest_plugin.plugin_api import router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.topology.router_port import port_of
from fixtures.guest.traffic import source_table_oracle as oracle
from fixtures.guest.traffic.connections import IPPROTO_TCP, Connection, connect

without_source_table = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
_CONTROL_PORT, _DATA_PORT = 7021, 7321
_IPS_EXPECTED = 1


def _say(conn: Connection, line: str) -> None:
    """Send a line of the FTP server to the client."""
    data = f"{line}\r\n".encode()
    conn.server.sendall(data)
    assert conn.client.recv(len(data)) == data


@pytest.mark.clause("SN-2.5", "FM-12.1")
@without_source_table
def test_ftp_data_connection_is_a_flow_and_its_control_connection_is_not(
    private_router: Router, private_flowmap: int, cleanup: ExitStack
) -> None:
    """A data connection that the FTP helper expects is offloaded and found; the control is not.

    ::

        client --- r0 [router, ct helper "ftp" on port 7021] r1 --- FTP server

    The router drops new connections to any other port, so only the helper's expectation lets the
    data connection through.
    """
    router = private_router
    nftables.run(
        f"""
        flush ruleset
        table inet fw {{
            flowtable ft {{ hook ingress priority 0; devices = {{ r0, r1 }}; }}
            ct helper ftp-standard {{ type "ftp" protocol tcp; }}
            chain helpers {{
                type filter hook prerouting priority 0;
                tcp dport {_CONTROL_PORT} ct helper set "ftp-standard"
            }}
            chain forward {{
                type filter hook forward priority 0; policy drop;
                meta l4proto {{ tcp, udp }} ct state established flow add @ft
                ct state established,related accept
                tcp dport {_CONTROL_PORT} accept
            }}
        }}
        """,
        router.namespace,
    )
    inside, outside = port_of(router.lan), port_of(router.wan)
    flows = []
    for version in (4, 6):
        control = connect(router, IPPROTO_TCP, version, cleanup, server_port=_CONTROL_PORT)
        _say(control, "220 ready")
        _say(control, f"229 Entering Extended Passive Mode (|||{_DATA_PORT}|)")
        data = connect(router, IPPROTO_TCP, version, cleanup, server_port=_DATA_PORT)
        oracle.assert_forwarded_as_value(data, private_flowmap, inside, outside)
        entry = data.wait_offloaded().entry
        assert entry.status & _IPS_EXPECTED
        flows.append(oracle.flow_of_entry(entry, inside, outside))
        for number in range(4):
            _say(control, f"200 still here {number}")
        control_entry = control.conntrack_entry()
        assert control_entry is not None
        assert not control_entry.offloaded
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)

    # The end of the control connection does not end the data connections.
    for entry in conntrack.entries(router.namespace):
        if entry.original.destination_port == _CONTROL_PORT:
            conntrack.delete(entry.original, router.namespace)
    oracle.assert_same_flows(private_flowmap, router.namespace, flows)
