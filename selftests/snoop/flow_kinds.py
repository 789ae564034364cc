# SPDX-License-Identifier: GPL-2.0-only
"""Connections of every kind at once, for tests of what happens to all of them.

The kinds are TCP and UDP, IPv4 and IPv6, without translation and with both SNAT and DNAT.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, nftables
from fixtures.guest.topology.client_router_server import (
    DNAT_ADDRESSES,
    SNAT_ADDRESSES,
    Router,
    RouterConfig,
)
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    connect,
)

SNAT_PORT = 7500
"""Connections to servers on this port or a higher one get another source address."""

_BATCH = 64


@dataclass(frozen=True)
class NamedFlow:
    """A connection, its keys, and a name for messages."""

    name: str
    conn: Connection
    keys: tuple[uapi.Key, uapi.Key]


def add_translation(router: Router) -> None:
    """Add rules that translate some of the connections that `connect_all` opens.

    Raises:
        nftables.RulesetError: the kernel rejected the rules.
    """
    nftables.run(
        f"""
        table inet nat {{
            chain pre {{
                type nat hook prerouting priority -100;
                ip daddr {DNAT_ADDRESSES[4]} dnat ip to {router.server.addresses[4]}
                ip6 daddr {DNAT_ADDRESSES[6]} dnat ip6 to {router.server.addresses[6]}
            }}
            chain post {{
                type nat hook postrouting priority 100;
                meta nfproto ipv4 th dport >= {SNAT_PORT} snat ip to {SNAT_ADDRESSES[4]}
                meta nfproto ipv6 th dport >= {SNAT_PORT} snat ip6 to {SNAT_ADDRESSES[6]}
            }}
        }}
        """,
        router.namespace,
    )


def connect_all(
    router: Router,
    cleanup: ExitStack,
    *,
    protocols: Sequence[int] = (IPPROTO_TCP, IPPROTO_UDP),
    versions: Sequence[int] = (4, 6),
    translated: Sequence[bool] = (False, True),
) -> dict[str, Connection]:
    """Open one connection of each kind; the names are like ``tcp-ipv4-nat``."""
    with_dnat = replace(router, config=RouterConfig(nat="snat+dnat"))
    conns = {}
    for protocol in protocols:
        for version in versions:
            for nat in translated:
                name = f"{'tcp' if protocol == IPPROTO_TCP else 'udp'}-ipv{version}"
                port = (SNAT_PORT if nat else 7000) + version
                conns[name + "-nat" * nat] = connect(
                    with_dnat if nat else router, protocol, version, cleanup, server_port=port
                )
    return conns


def offload_all(router: Router, cleanup: ExitStack, **kinds: Sequence[int]) -> list[NamedFlow]:
    """Open one connection of each kind, and wait until each is offloaded.

    Args:
        router: a router without NAT; rules are added.
        cleanup: closes the connections.
        kinds: as for `connect_all`.
    """
    add_translation(router)
    flows = []
    for name, conn in connect_all(router, cleanup, **kinds).items():  # type: ignore[arg-type]
        flow = conn.wait_offloaded()
        assert bool(flow.entry.original.reversed() != flow.entry.reply) == name.endswith("nat")
        flows.append(NamedFlow(name, conn, flow.keys))
    return flows


def serves(conn: Connection) -> bool:
    """Return whether conntrack says that a flowtable serves the connection."""
    entry = conn.conntrack_entry()
    return entry is not None and entry.offloaded


@dataclass(frozen=True)
class AllReaders:
    """All readers of some flow maps, and a program that reads one of the maps."""

    maps: Sequence[int]
    probe: LookupProbe | None = None

    def assert_exactly(self, flows: Sequence[NamedFlow], gone: Sequence[NamedFlow] = ()) -> None:
        """Require that every reader finds these flows and no other.

        Args:
            flows: the flows that have to be found.
            gone: flows that have to be misses.

        Raises:
            AssertionError: a reader does not; the message names the reader and the flows.
        """
        expected = {bytes(key): flow.name for flow in flows for key in flow.keys}
        for number, fd in enumerate(self.maps, start=1):
            walked = list(map(bytes, bpf.iterate_keys(fd)))
            assert sorted(walked) == sorted(expected), f"walk of map {number}"
            pairs, _, ended = bpf.lookup_batch(fd, _BATCH)
            assert ended
            assert sorted(bytes(key) for key, _ in pairs) == sorted(expected), f"batch {number}"
        for flow in (*flows, *gone):
            directions = [0, 1] if flow in flows else [None, None]
            for number, fd in enumerate(self.maps, start=1):
                values = [bpf.lookup_or_none(fd, key) for key in flow.keys]
                found = [None if value is None else int(value.dir) for value in values]
                assert found == directions, f"lookup of {flow.name} in map {number}"
            if self.probe is not None:
                values = [self.probe.lookup(key) for key in flow.keys]
                found = [None if value is None else int(value.dir) for value in values]
                assert found == directions, f"program's lookup of {flow.name}"

    def wait_freed(self, count: int = 0) -> None:
        """Wait until the maps have entries of so many flows, ended ones included."""
        wait_for(
            f"{count} entries in each map",
            lambda: all(bpf.flowmap_entry_count(fd) == count for fd in self.maps),
        )


def conntrack_delete_one(flow: NamedFlow, namespace: str) -> None:
    """Delete the conntrack entry of a flow, as ``conntrack -D`` does."""
    conntrack.delete(flow.conn.tuple, namespace)
