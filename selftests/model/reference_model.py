# SPDX-License-Identifier: GPL-2.0-only
"""What every reader must see, in plain Python: the model that the kernel is held against.

It knows clauses, not code: SN-2, SN-6, SN-9, FM-2, FM-11, MM-3 and MM-4 of docs/contract.md.
"""

import errno
import socket
from dataclasses import dataclass, field

TCP, UDP = int(socket.IPPROTO_TCP), int(socket.IPPROTO_UDP)

TABLES = {(TCP, 4): "fw", (TCP, 6): "fw", (UDP, 4): "fw4", (UDP, 6): "fw6"}
"""Which source table takes which connections (`fixtures.guest.topology.client_router_server`, tables ``split``)."""

PORTS = ("inside", "outside")
"""The router's two devices; every flow needs both."""


@dataclass
class Space:
    """A network namespace: a router's, or one in which nothing ever happens."""

    router: bool
    tables: set[str] = field(default_factory=set)
    """Source tables that it has."""
    down: set[str] = field(default_factory=set)
    """Devices that are down."""
    snoops: set[str] = field(default_factory=set)
    exists: bool = True


@dataclass
class Flow:
    """A connection that has been offloaded at least once."""

    space: str
    protocol: int
    version: int
    keys: tuple[bytes, bytes]
    """Original and reply direction, as the map's keys."""
    live: bool = True
    tracked: bool = True
    """Whether its conntrack entry is still the one that it began with."""

    @property
    def table(self) -> str:
        """The source table that serves it."""
        return TABLES[self.protocol, self.version]


@dataclass
class Map:
    """A flow map that somebody holds."""

    space: str
    room: int
    """Flows that fit in."""


@dataclass
class World:
    """Everything that there is."""

    spaces: dict[str, Space] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    loaded: bool = True
    """Whether the flow map's module is in the kernel."""

    # --- what can be done

    def existing(self) -> list[str]:
        """Namespaces that are there."""
        return [name for name, space in self.spaces.items() if space.exists]

    def routers(self) -> list[str]:
        """Those of them that are routers."""
        return [name for name in self.existing() if self.spaces[name].router]

    def ways(self) -> list[tuple[str, int, int]]:
        """Where a new connection would be offloaded: namespace, protocol, IP version."""
        return [
            (name, *kind)
            for name in self.routers()
            for kind, table in TABLES.items()
            if table in self.spaces[name].tables and not self.spaces[name].down
        ]

    def live(self, space: str | None = None) -> list[str]:
        """Flows that are being served, all of them or those of a namespace."""
        return [
            name for name, flow in self.flows.items() if flow.live and space in (None, flow.space)
        ]

    def revivable(self) -> list[str]:
        """Flows that have ended, and whose connection would be offloaded by its next packets.

        TCP only where conntrack still knows the connection: what it makes of a segment in the
        middle of one that it does not know is not ours to model.
        """
        ways = set(self.ways())
        return [
            name
            for name, flow in self.flows.items()
            if not flow.live
            and (flow.space, flow.protocol, flow.version) in ways
            and (flow.protocol == UDP or flow.tracked)
        ]

    # --- what happens

    def end(self, space: str, table: str | None = None, *, untracked: bool = False) -> None:
        """The flows of a namespace end, or those that one of its tables serves.

        Args:
            space: the namespace.
            table: the source table, or None for all.
            untracked: conntrack forgets the connections, too.
        """
        for flow in self.flows.values():
            if flow.space == space and table in (None, flow.table):
                flow.live = False
                flow.tracked &= not untracked

    def drop_table(self, space: str, table: str) -> None:
        """A source table goes, and with it what it serves."""
        self.spaces[space].tables.remove(table)
        self.end(space, table)

    def reload(self, space: str) -> None:
        """Every table goes, snoop tables with them, and the source tables come anew."""
        self.spaces[space].tables = set(TABLES.values())
        self.spaces[space].snoops.clear()
        self.end(space)

    def leave(self, space: str) -> None:
        """A namespace goes; maps made in it stay, empty for ever (FM-2)."""
        self.spaces[space].exists = False
        self.spaces[space].snoops.clear()
        self.end(space, untracked=True)

    # --- what is seen

    def keys(self, space: str) -> list[bytes]:
        """Every key that a reader of this namespace's flows must see, sorted."""
        return sorted(key for name in self.live(space) for key in self.flows[name].keys)

    def creation(self) -> int:
        """The errno of making a map, where the kernel cannot ask for the module; 0 for none."""
        return 0 if self.loaded else errno.EINVAL

    def unload(self) -> int:
        """The errno of unloading the flow map's module, or 0."""
        if not self.loaded:
            return errno.ENOENT
        return errno.EWOULDBLOCK if self.maps else 0
