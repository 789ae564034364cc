# SPDX-License-Identifier: GPL-2.0-only
"""Reference model: the flows and maps that every reader must see, in plain Python.

It models clauses, not code: SN-2, SN-6, SN-9, FM-2, FM-11, MM-3 and MM-4 of docs/contract.md.
"""

import errno
import socket
from dataclasses import dataclass, field

TCP, UDP = int(socket.IPPROTO_TCP), int(socket.IPPROTO_UDP)

SOURCE_TABLES = {(TCP, 4): "fw", (TCP, 6): "fw", (UDP, 4): "fw4", (UDP, 6): "fw6"}
"""The source table of each protocol and IP version, with the router's tables ``split``."""

ROUTER_DEVICES = ("lan", "wan")
"""The router's devices; every flow needs both."""


@dataclass
class Netns:
    """A network namespace: a router's, or an idle one without flows."""

    router: bool
    source_tables: set[str] = field(default_factory=set)
    """Its source tables."""
    devices_down: set[str] = field(default_factory=set)
    """Its devices that are down."""
    snoop_tables: set[str] = field(default_factory=set)
    exists: bool = True


@dataclass
class Flow:
    """A connection that has been offloaded at least once."""

    netns: str
    protocol: int
    version: int
    keys: tuple[bytes, bytes]
    """The map keys of original and reply direction."""
    live: bool = True
    tracked: bool = True
    """Whether the conntrack entry is still the connection's first one."""

    @property
    def table(self) -> str:
        """The source table that offloads it."""
        return SOURCE_TABLES[self.protocol, self.version]


@dataclass
class FlowMap:
    """A flow map with an open descriptor."""

    netns: str
    max_entries: int
    """The map's capacity in keys."""


@dataclass
class ReferenceModel:
    """All namespaces, flows and maps, and whether the module is loaded."""

    namespaces: dict[str, Netns] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    maps: dict[str, FlowMap] = field(default_factory=dict)
    module_loaded: bool = True
    """Whether the flow map's module is loaded."""

    # --- possible steps

    def existing_netns(self) -> list[str]:
        """Return the existing namespaces."""
        return [name for name, netns in self.namespaces.items() if netns.exists]

    def routers(self) -> list[str]:
        """Return the existing namespaces that are routers."""
        return [name for name in self.existing_netns() if self.namespaces[name].router]

    def offloadable_kinds(self) -> list[tuple[str, int, int]]:
        """Return where new connections would be offloaded: namespace, protocol, IP version."""
        return [
            (name, *protocol_and_version)
            for name in self.routers()
            for protocol_and_version, table in SOURCE_TABLES.items()
            if table in self.namespaces[name].source_tables
            and not self.namespaces[name].devices_down
        ]

    def live_flows(self, netns: str | None = None) -> list[str]:
        """Return the offloaded flows, all of them or those of a namespace."""
        return [
            name for name, flow in self.flows.items() if flow.live and netns in (None, flow.netns)
        ]

    def reoffloadable_flows(self) -> list[str]:
        """Return the ended flows whose connection the next packets would offload again.

        TCP connections only while conntrack has an entry: the model does not cover what conntrack
        does with a segment from the middle of an unknown connection.
        """
        kinds = set(self.offloadable_kinds())
        return [
            name
            for name, flow in self.flows.items()
            if not flow.live
            and (flow.netns, flow.protocol, flow.version) in kinds
            and (flow.protocol == UDP or flow.tracked)
        ]

    # --- steps

    def end_flows(self, netns: str, table: str | None = None, *, untracked: bool = False) -> None:
        """End the flows of a namespace, or those of one of its source tables.

        Args:
            netns: the namespace.
            table: the source table, or None for all.
            untracked: whether conntrack deletes the connections, too.
        """
        for flow in self.flows.values():
            if flow.netns == netns and table in (None, flow.table):
                flow.live = False
                flow.tracked &= not untracked

    def delete_source_table(self, netns: str, table: str) -> None:
        """Delete a source table, which ends its flows."""
        self.namespaces[netns].source_tables.remove(table)
        self.end_flows(netns, table)

    def reload_ruleset(self, netns: str) -> None:
        """Delete all tables with their flows, and create the source tables again."""
        self.namespaces[netns].source_tables = set(SOURCE_TABLES.values())
        self.namespaces[netns].snoop_tables.clear()
        self.end_flows(netns)

    def delete_netns(self, netns: str) -> None:
        """Delete a namespace; its maps stay, empty for good (FM-2)."""
        self.namespaces[netns].exists = False
        self.namespaces[netns].snoop_tables.clear()
        self.end_flows(netns, untracked=True)

    # --- expected observations

    def expected_keys(self, netns: str) -> list[bytes]:
        """Return every key that readers of this namespace must see, sorted."""
        return sorted(key for name in self.live_flows(netns) for key in self.flows[name].keys)

    def map_create_errno(self) -> int:
        """Return the errno of BPF_MAP_CREATE without module autoload, or 0."""
        return 0 if self.module_loaded else errno.EINVAL

    def unload_errno(self) -> int:
        """Return the errno of unloading the flow map's module, or 0."""
        if not self.module_loaded:
            return errno.ENOENT
        return errno.EWOULDBLOCK if self.maps else 0
