# SPDX-License-Identifier: GPL-2.0-only
"""The test of xdp-forward's flowtable mode, with the kfunc program and with the flow map's.

Rebuilt from xdp-tools 1.6.3: ``test_flowtable`` in xdp-forward/tests/test-xdp-forward.sh, the
topology of lib/testing/test_runner.sh, and what xdp-forward/xdp_flowtable.bpf.c does.  Its two
network namespaces are links of one router::

    client c0 ======== r0  router  r1 ======== s0 server
                       |            |           drops all input but TCP from r1's address
                       |            masquerade  to port 10000
                       DNAT of r1's address, port 12345, to the server's port 10000

Neighbours are permanent, checksum offload is off, programs are attached to both devices in native
mode, and each forward of an established TCP connection adds a flow.  256 KiB go from client to
server, over IPv4 and over IPv6.
"""

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import XDP_FLAGS_DRV_MODE, BpfObject
from fixtures.guest.core import polling
from fixtures.guest.net import ethtool, netns, nftables
from fixtures.guest.net.conntrack import Tuple
from fixtures.guest.pytest_plugin.plugin_api import router_config_id
from fixtures.guest.topology.client_router_server import Interface, Router, RouterConfig
from fixtures.guest.traffic import headers_from_value, rx_capture, tx_capture
from fixtures.guest.traffic.bulk_transfer import BulkTransfer
from fixtures.guest.traffic.connections import IPPROTO_TCP, Connection, send_frames
from fixtures.guest.traffic.xdp_forwarder import ForwardResult, XdpForwarder

_PUBLIC_PORT, _SERVER_PORT = 12345, 10000
_FILE_SIZE = 8192 * 32
_KFUNC = "xdp_kfunc_forward"
_TAG = b"sent over each path"
_SEQ_OFFSET, _SEQ_MODULO = 4000, 1 << 32
_SIZES = (len(_TAG), 61, 1000, 1300)

Count = Callable[[], int]


def _router_ruleset(router: Router) -> str:
    server = router.server.addresses
    return f"""
table inet nat {{
  chain prerouting {{
    type nat hook prerouting priority filter; policy accept;
    iifname "r0" meta nfproto ipv4 tcp dport {_PUBLIC_PORT} dnat ip to {server[4]}:{_SERVER_PORT}
    iifname "r0" meta nfproto ipv6 tcp dport {_PUBLIC_PORT} dnat ip6 to [{server[6]}]:{_SERVER_PORT}
  }}
  chain postrouting {{
    type nat hook postrouting priority filter; policy accept;
    oifname "r1" masquerade
  }}
}}
table inet filter {{
  flowtable ft {{
    hook ingress priority filter; devices = {{ r0, r1 }};
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    meta l4proto tcp flow add @ft
  }}
}}
"""


def _server_ruleset(router: Router) -> str:
    outside, inside = router.wan.addresses, router.server.addresses
    return f"""
table inet filter {{
  chain input {{
    type filter hook input priority 0; policy drop;
    ip saddr {outside[4]} ip daddr {inside[4]} tcp dport {_SERVER_PORT} counter accept
    ip6 saddr {outside[6]} ip6 daddr {inside[6]} tcp dport {_SERVER_PORT} counter accept
    meta l4proto tcp counter
  }}
}}
"""


def _server_counts(router: Router) -> tuple[int, int]:
    """Return the number of segments that the server's ruleset has accepted and dropped."""
    listed = nftables.run("list table inet filter", router.server.namespace)
    ipv4, ipv6, dropped = map(int, re.findall(r"counter packets (\d+)", listed))
    return ipv4 + ipv6, dropped


def _connect(router: Router, version: int, cleanup: ExitStack) -> Connection:
    """Connect from the client to the public address and port; return both ends."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    timeout = 5.0 * polling.deadline_scale()
    with netns.open_socket(router.server.namespace, family, socket.SOCK_STREAM) as listener:
        listener.settimeout(timeout)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((router.server.addresses[version], _SERVER_PORT))
        listener.listen(1)
        client = netns.open_socket(router.client.namespace, family, socket.SOCK_STREAM)
        client.settimeout(timeout)
        cleanup.callback(client.close)
        client.connect((router.wan.addresses[version], _PUBLIC_PORT))
        server, _ = listener.accept()
    server.settimeout(timeout)
    address, port = client.getsockname()[:2]
    original = Tuple(IPPROTO_TCP, address, router.wan.addresses[version], port, _PUBLIC_PORT)
    conn = Connection(router, client, server, original)
    cleanup.callback(conn.client_rst)
    cleanup.callback(conn.server_rst)
    return conn


def _attach_kfunc(router: Router, _: int, attached: ExitStack) -> Count:
    """Attach the program that looks flows up with ``bpf_xdp_flow_lookup()``."""
    loaded = BpfObject(_KFUNC, {})
    attached.callback(loaded.close)
    for port in (router.lan, router.wan):
        loaded.attach_xdp(_KFUNC, port.ifindex, router.namespace, attached, XDP_FLAGS_DRV_MODE)
    return lambda: loaded.counter(0)


def _attach_flowmap(router: Router, flowmap: int, attached: ExitStack) -> Count:
    """Attach the program that looks flows up in the flow map."""
    forwarder = XdpForwarder(router, flowmap, attached, native=True)
    return lambda: forwarder.result_counts()[ForwardResult.FORWARDED]


def _attach_nothing(_router: Router, _flowmap: int, _attached: ExitStack) -> Count:
    """Leave the packets to the flowtable."""
    return lambda: 0


_PATHS = {"kfunc": _attach_kfunc, "flow map": _attach_flowmap, "flowtable": _attach_nothing}


def _old_segments(template: bytes) -> list[bytes]:
    """Build segments of several sizes that the receiver has already got, from one of its frames."""
    frames = []
    for size in _SIZES:
        packet = Ether(template)
        packet[TCP].seq = (packet[TCP].seq - _SEQ_OFFSET) % _SEQ_MODULO
        packet[TCP].payload = Raw(_TAG.ljust(size, bytes([size % 251])))
        for part in packet.iterpayloads():
            for field in ("len", "plen", "chksum"):
                if field in part.fields:
                    delattr(part, field)
        frames.append(bytes(packet))
    return frames


def _last_frame(conn: Connection, port: Interface) -> bytes:
    """Return a frame with payload that one end of the connection has sent."""
    with tx_capture.capture_tx(port.namespace) as sent:
        conn.exchange(tx_capture.PAYLOAD)
        return sent(port.device, tx_capture.PAYLOAD)[-1]


def _replay(frames: list[bytes], sender: Interface, receiver: Interface) -> list[bytes]:
    """Send frames through the router; return the frames that arrive, in their order."""
    with rx_capture.capture_rx(receiver) as arrived:
        send_frames(sender, frames)
        return arrived(_TAG, len(frames))


_Frames = tuple[list[bytes], list[bytes]]
"""The frames that the server and the client have received."""


@dataclass(frozen=True)
class _Replay:
    """A connection, and old segments of both of its ends."""

    conn: Connection
    to_server: list[bytes]
    to_client: list[bytes]

    def forward(self) -> _Frames:
        """Send the segments through the router; return the frames that arrive."""
        router = self.conn.router
        return (
            _replay(self.to_server, router.client, router.server),
            _replay(self.to_client, router.server, router.client),
        )


def _open_replay(router: Router, version: int, cleanup: ExitStack) -> _Replay:
    conn = _connect(router, version, cleanup)
    conn.wait_offloaded()
    return _Replay(
        conn,
        _old_segments(_last_frame(conn, router.client)),
        _old_segments(_last_frame(conn, router.server)),
    )


def _send_file(router: Router, version: int, flowmap: int, forwarded: Count) -> int:
    """Send the file over a connection of its own; return how many packets were forwarded."""
    with ExitStack() as closed:
        conn = _connect(router, version, closed)
        value = bpf.lookup(flowmap, conn.wait_offloaded().original)
        assert value.flags == uapi.F_SNAT | uapi.F_DNAT
        assert value.ports.destination == _SERVER_PORT
        before = forwarded()
        assert BulkTransfer(conn, _FILE_SIZE, seed=version).received_intact()
        return forwarded() - before


@pytest.mark.clause("FM-3.20", "FM-4.7", "FM-12.2")
@pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)
@pytest.mark.parametrize(
    "paths",
    [["kfunc", "flow map", "flowtable"], ["flow map", "flowtable", "kfunc"]],
    ids=["kfunc-first", "flowmap-first"],
)
def test_xdp_forward_scenario_is_same_with_kfunc_and_flowmap(
    private_router: Router,
    private_flowmap: int,
    cleanup: ExitStack,
    paths: list[str],
) -> None:
    """Both programs forward the file, and the same segments arrive byte-identical on both sides.

    Each file has a connection of its own.  The segments belong to one that stays, while the
    programs replace each other.  The server's ruleset drops a segment whose addresses or port are
    not translated, so it counts none.  The program forwards each replayed segment, and nearly all
    segments of the file.
    """
    router = private_router
    nftables.run(_router_ruleset(router), router.namespace)
    nftables.run(_server_ruleset(router), router.server.namespace)
    for host in (router.client, router.server):
        ethtool.disable_tx_checksum_offload(host.device, host.namespace)
        ethtool.enable_gro(host.device, host.namespace)
    for port in (router.lan, router.wan):
        ethtool.disable_tx_checksum_offload(port.device, router.namespace)

    results: dict[str, dict[int, _Frames]] = {}
    replays: dict[int, _Replay] = {}
    for path in paths:
        with ExitStack() as attached:
            forwarded = _PATHS[path](router, private_flowmap, attached)
            if not replays:
                replays = {version: _open_replay(router, version, cleanup) for version in (4, 6)}
            else:
                for replay in replays.values():
                    replay.conn.wait_reoffloaded()
            results[path] = {}
            for version, replay in replays.items():
                where = f"{path}, IPv{version}"
                before = forwarded()
                results[path][version] = replay.forward()
                in_replay = forwarded() - before
                in_file = _send_file(router, version, private_flowmap, forwarded)
                if path != "flowtable":
                    assert in_replay >= 2 * len(_SIZES), where
                    assert in_file > _FILE_SIZE // 1500, where
        accepted, dropped = _server_counts(router)
        assert accepted > 0
        assert dropped == 0, f"{path}: segments without translation"

    for version, frames in results["flowtable"].items():
        assert all(map(headers_from_value.checksums_valid, frames[0] + frames[1]))
        for path, result in results.items():
            assert result[version] == frames, f"{path}, IPv{version}"
