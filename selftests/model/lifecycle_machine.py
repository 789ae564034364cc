# SPDX-License-Identifier: GPL-2.0-only
"""State machine: each step changes the kernel and the model; then all readers are compared.

A step's arguments are names from the model. So the sequence that Hypothesis prints is code
that repeats the failure when it is put into a test.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.runtime import kernel_state, leak_check
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Interface, Router, RouterConfig
from fixtures.guest.traffic.connections import Connection, connect
from selftests.model.reference_model import ROUTER_DEVICES, Flow, FlowMap, Netns, ReferenceModel

F = TypeVar("F", bound=Callable[..., Any])

_ROUTER_NETNS = ("one", "two")
_IDLE_NETNS = ("idle",)
_SNOOP_TABLES = ("snoop1", "snoop2")
_NAT = (None, "masquerade", "snat+dnat")
_MAX_FLOWS = 8
_MAX_ENTRIES = tuple(map(uapi.keys_for_flows, (1024, 1024, 1)))
_MAX_MAPS = 4

# Seconds: longer than an example takes on the slowest machine, so that no flow expires.
_LONG_FLOW_TIMEOUTS = {
    "netfilter/nf_flowtable_udp_timeout": 3600,
    "netfilter/nf_flowtable_tcp_timeout": 3600,
}


def _draw_from(
    candidates: Callable[["LifecycleMachine"], Sequence[Any]], machine: "LifecycleMachine"
) -> st.SearchStrategy[Any]:
    """Draw one of the candidates that the machine's model has now."""
    return st.sampled_from(candidates(machine))


def model_step(**arguments: Callable[["LifecycleMachine"], Sequence[Any]]) -> Callable[[F], F]:
    """Declare a rule whose arguments are drawn from the model.

    Args:
        arguments: for each argument a function that returns the candidates; the rule is not
            run while one of them returns none.
    """
    strategies = {
        name: st.runner().flatmap(partial(_draw_from, candidates))
        for name, candidates in arguments.items()
    }

    def decorate(function: F) -> F:
        guarded = precondition(
            lambda machine: all(candidates(machine) for candidates in arguments.values())
        )
        # Hypothesis' overloads of rule() do not type strategies from a dictionary.
        decorated: Any = guarded(cast(Any, rule)(**strategies)(function))
        return cast(F, decorated)

    return decorate


class LifecycleMachine(RuleBasedStateMachine):
    """A kernel with routers, namespaces, source and snoop tables, flows, maps and the module."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ReferenceModel()
        self._router_of: dict[str, Router] = {}
        self._connections: dict[str, Connection] = {}
        self._fds: dict[str, int] = {}
        self._name_count = 0
        self._cleanup = ExitStack()
        for name in (modules.FLOWTABLE_INET_MODULE, modules.NFT_FLOW_OFFLOAD_MODULE):
            modules.modprobe(name)
        if not modules.loaded(modules.FLOWMAP_MODULE):
            modules.load(modules.FLOWMAP_MODULE)
        self._kernel_state_before = kernel_state.read_kernel_state()
        # Other tests cover autoload by BPF_MAP_CREATE; modprobe is slow.
        self._cleanup.enter_context(modules.autoload_disabled())

    def _unused_name(self, prefix: str) -> str:
        """Return an unused name."""
        self._name_count += 1
        return f"{prefix}{self._name_count}"

    def _kernel_netns(self, ns: str) -> str:
        """Return the kernel's name of a model namespace."""
        return f"{ns}-router" if self.model.namespaces[ns].router else ns

    def _router_device(self, ns: str, port: str) -> Interface:
        """Return a router's device by its name in the model."""
        router = self._router_of[ns]
        return router.lan if port == "lan" else router.wan

    # --- namespaces

    @initialize(nat=st.sampled_from(_NAT))
    def build_first_router(self, nat: str | None) -> None:
        """Build a router; offload TCP over IPv4 and UDP over IPv6."""
        self.build_router("one", nat)
        for kind in self.model.offloadable_kinds()[::3]:
            self.offload_connection(kind)

    @model_step(
        ns=lambda machine: [name for name in _ROUTER_NETNS if name not in machine.model.namespaces],
        nat=lambda _: _NAT,
    )
    def build_router(self, ns: str, nat: str | None) -> None:
        """Build a router with its two hosts."""
        plan = RouterConfig(nat=nat, tables="split", netns_prefix=ns)
        self._router_of[ns] = client_router_server.build_router(plan, self._cleanup)
        self.model.namespaces[ns] = Netns(
            router=True, source_tables=set(client_router_server.SPLIT_TABLES)
        )
        netns.set_sysctls(self._kernel_netns(ns), _LONG_FLOW_TIMEOUTS)

    @model_step(
        ns=lambda machine: [name for name in _IDLE_NETNS if name not in machine.model.namespaces]
    )
    def create_idle_netns(self, ns: str) -> None:
        """Create a namespace that never has flows."""
        netns.create(ns)
        self._cleanup.callback(netns.remove_if_exists, ns)
        self.model.namespaces[ns] = Netns(router=False)

    @model_step(ns=lambda machine: machine.model.existing_netns())
    def delete_netns(self, ns: str) -> None:
        """Delete a namespace and all objects in it."""
        netns.remove(self._kernel_netns(ns))
        self.model.delete_netns(ns)
        fds = [fd for name, fd in self._fds.items() if self.model.maps[name].netns == ns]
        wait_for(
            "the maps of the deleted netns to be empty",
            lambda: not any(list(bpf.iterate_keys(fd)) for fd in fds),
        )

    # --- connections

    @precondition(lambda machine: len(machine.model.flows) < _MAX_FLOWS)
    @model_step(kind=lambda machine: machine.model.offloadable_kinds())
    def offload_connection(self, kind: tuple[str, int, int]) -> None:
        """Open a connection and have it offloaded."""
        ns, protocol, version = kind
        name = self._unused_name("flow")
        conn = connect(
            self._router_of[ns],
            protocol,
            version,
            self._cleanup,
            server_port=7000 + self._name_count,
        )
        self._connections[name] = conn
        self.model.flows[name] = Flow(ns, protocol, version, self._offload(conn))

    @model_step(flow=lambda machine: machine.model.reoffloadable_flows())
    def reoffload_connection(self, flow: str) -> None:
        """Send on a connection whose flow ended, until it is offloaded again."""
        state = self.model.flows[flow]
        state.keys = self._offload(self._connections[flow])
        state.live = state.tracked = True

    @staticmethod
    def _offload(conn: Connection) -> tuple[bytes, bytes]:
        """Send until the connection is offloaded; return the flow's keys."""
        flow = conn.wait_offloaded()
        return bytes(flow.original), bytes(flow.reply)

    @model_step(flow=lambda machine: machine.model.live_flows())
    def conntrack_delete(self, flow: str) -> None:
        """Delete a connection: ``conntrack -D``."""
        state = self.model.flows[flow]
        conntrack.delete(self._connections[flow].tuple, self._kernel_netns(state.netns))
        state.live = state.tracked = False

    @model_step(ns=lambda machine: machine.model.routers())
    def conntrack_flush(self, ns: str) -> None:
        """Delete all connections: ``conntrack -F``."""
        conntrack.flush(self._kernel_netns(ns))
        self.model.end_flows(ns, untracked=True)

    # --- devices

    @model_step(
        ns=lambda machine: [
            name for name in machine.model.routers() if not machine._has_device_down(name)
        ],
        port=lambda _: ROUTER_DEVICES,
    )
    def device_down(self, ns: str, port: str) -> None:
        """Set a router's device down: ``ip link set down``."""
        self._rtnetlink(ns, rtnetlink.set_down(self._router_device(ns, port).ifindex))
        self.model.namespaces[ns].devices_down.add(port)
        # nf_nat_masquerade.c deletes the conntrack entries of connections masqueraded there.
        self.model.end_flows(ns, untracked=True)

    @model_step(
        ns=lambda machine: [
            name for name in machine.model.routers() if machine._has_device_down(name)
        ]
    )
    def device_up(self, ns: str) -> None:
        """Set the device up; restore its IPv6 addresses and neighbour entries."""
        router = self._router_of[ns]
        (port,) = self.model.namespaces[ns].devices_down
        device = self._router_device(ns, port)
        peer = router.client if port == "lan" else router.server
        self._rtnetlink(
            ns,
            rtnetlink.set_up(device.ifindex),
            rtnetlink.add_address(device.ifindex, device.addresses[6], 64),
            *(
                rtnetlink.add_permanent_neigh(device.ifindex, host, peer.mac)
                for host in peer.addresses.values()
            ),
        )
        for end in (device, peer):
            wait_for(
                f"{end.device} to be able to send",
                partial(rtnetlink.is_oper_up, end.ifindex, end.namespace),
            )
        self.model.namespaces[ns].devices_down.clear()

    def _has_device_down(self, ns: str) -> bool:
        return bool(self.model.namespaces[ns].devices_down)

    def _rtnetlink(self, ns: str, *messages: Any) -> None:
        netlink.transact(netlink.NETLINK_ROUTE, messages, self._kernel_netns(ns))

    # --- source tables

    def _source_tables(self, *, present: bool) -> list[tuple[str, str]]:
        """Return namespace and name of source tables that exist, or do not."""
        return [
            (ns, table)
            for ns in self.model.routers()
            for table in client_router_server.SPLIT_TABLES
            if (table in self.model.namespaces[ns].source_tables) is present
        ]

    @model_step(ns_and_table=lambda machine: machine._source_tables(present=True))
    def delete_source_table(self, ns_and_table: tuple[str, str]) -> None:
        """Delete a source table: ``nft delete table``."""
        ns, table = ns_and_table
        flowtable.drop_table(
            table, self._kernel_netns(ns), client_router_server.SPLIT_TABLES[table].family
        )
        self.model.delete_source_table(ns, table)
        self._wait_flows_ended(ns)

    @model_step(ns_and_table=lambda machine: machine._source_tables(present=False))
    def restore_source_table(self, ns_and_table: tuple[str, str]) -> None:
        """Create a deleted source table again, with its rule."""
        ns, table = ns_and_table
        nftables.run(client_router_server.source_table_ruleset(table), self._kernel_netns(ns))
        self.model.namespaces[ns].source_tables.add(table)

    @model_step(ns=lambda machine: machine.model.routers())
    def reload_ruleset(self, ns: str) -> None:
        """Flush the ruleset and load it again in one transaction."""
        rules = client_router_server.ruleset(self._router_of[ns].config)
        nftables.run(f"flush ruleset\n{rules}", self._kernel_netns(ns))
        self.model.reload_ruleset(ns)
        self._wait_flows_ended(ns)

    def _wait_flows_ended(self, ns: str) -> None:
        """Wait until the flows of deleted tables have ended.

        nf_tables destroys tables in a work queue; until then they go on forwarding.
        """
        wait_for(
            "the deleted tables' flows to end",
            lambda: self._offload_count(ns) == len(self.model.live_flows(ns)),
        )

    def _offload_count(self, ns: str) -> int:
        return len(conntrack.offloaded_entries(self._kernel_netns(ns)))

    # --- snoop tables

    def _snoop_tables(self, *, present: bool) -> list[tuple[str, str]]:
        """Return namespace and name of snoop tables that exist, or do not."""
        return [
            (ns, table)
            for ns in self.model.existing_netns()
            for table in _SNOOP_TABLES
            if (table in self.model.namespaces[ns].snoop_tables) is present
        ]

    @model_step(ns_and_table=lambda machine: machine._snoop_tables(present=False))
    def create_snoop_table(self, ns_and_table: tuple[str, str]) -> None:
        """Create a snoop table."""
        ns, table = ns_and_table
        flowtable.create_snoop_table(table, "all", self._kernel_netns(ns))
        self.model.namespaces[ns].snoop_tables.add(table)

    @model_step(ns_and_table=lambda machine: machine._snoop_tables(present=True))
    def delete_snoop_table(self, ns_and_table: tuple[str, str]) -> None:
        """Delete a snoop table."""
        ns, table = ns_and_table
        flowtable.drop_table(table, self._kernel_netns(ns))
        self.model.namespaces[ns].snoop_tables.remove(table)

    # --- maps and the module

    @precondition(lambda machine: len(machine.model.maps) < _MAX_MAPS)
    @model_step(
        ns=lambda machine: machine.model.existing_netns(), max_entries=lambda _: _MAX_ENTRIES
    )
    def create_map(self, ns: str, max_entries: int) -> None:
        """Create a flow map in a namespace; without the module this fails."""
        with netns.entered(self._kernel_netns(ns)):
            if code := self.model.map_create_errno():
                with expect_errno(code):
                    bpf.flowmap_create(max_entries)
                return
            fd = bpf.flowmap_create(max_entries)
        name = self._unused_name("map")
        self._fds[name] = fd
        self.model.maps[name] = FlowMap(ns, max_entries)

    @model_step(name=lambda machine: list(machine.model.maps))
    def close_map(self, name: str) -> None:
        """Close a map's only descriptor."""
        os.close(self._fds.pop(name))
        del self.model.maps[name]

    @rule()
    def unload_module(self) -> None:
        """Unload the flow map's module: ``rmmod``."""
        if code := self.model.unload_errno():
            with expect_errno(code):
                modules.unload(modules.FLOWMAP_MODULE)
            return
        # A map that has just been closed is freed after a grace period.
        wait_for("the module to be unloadable", _unloaded)
        self.model.module_loaded = False

    @precondition(lambda machine: not machine.model.module_loaded)
    @rule()
    def load_module(self) -> None:
        """Load the flow map's module: ``insmod``."""
        modules.load(modules.FLOWMAP_MODULE)
        self.model.module_loaded = True

    # --- invariants: what all readers see

    @invariant()
    def maps_match_model(self) -> None:
        """Lookups, iteration and batch of every map agree with the model."""
        for name, fd in self._fds.items():
            state = self.model.maps[name]
            expected = self.model.expected_keys(state.netns)
            seen = [bytes(key) for key in bpf.iterate_keys(fd, limit=1000)]
            if state.max_entries >= uapi.keys_for_flows(_MAX_FLOWS):
                assert sorted(seen) == expected, f"keys by BPF_MAP_GET_NEXT_KEY in {name}"
            else:
                # Which flows fit is unspecified; capacity is reused only after a grace period.
                assert set(seen) <= set(expected), f"keys by BPF_MAP_GET_NEXT_KEY in {name}"
                assert len(seen) <= state.max_entries
            pairs, _, ended = bpf.lookup_batch(fd, uapi.keys_for_flows(_MAX_FLOWS) + 1)
            assert ended
            assert sorted(bytes(key) for key, _ in pairs) == sorted(seen), (
                f"keys by BPF_MAP_LOOKUP_BATCH in {name}"
            )
            for flow in self.model.flows.values():
                self._check_lookups(name, fd, flow, set(seen))

    def _check_lookups(self, name: str, fd: int, flow: Flow, visible_keys: set[bytes]) -> None:
        """Check that lookups of a flow's keys hit exactly if the iteration has them."""
        values = [bpf.lookup_or_none(fd, uapi.Key.from_buffer_copy(key)) for key in flow.keys]
        expected = [
            direction if key in visible_keys else None for direction, key in enumerate(flow.keys)
        ]
        seen = [None if value is None else value.dir for value in values]
        assert seen == expected, f"lookups of {flow} in {name}"
        assert expected in ([0, 1], [None, None]), f"one direction only of {flow} in {name}"

    @invariant()
    def snoop_tables_match_model(self) -> None:
        """Snoop tables are those of the model, missed no flow and count at least the live flows.

        A work item publishes a new table, so it is complete only some time after its creation.
        """
        for ns in self.model.existing_netns():
            tables = self._snoop_tables_of(ns)
            wait_for(
                f"the snoop tables {tables} of {ns} to have every live flow",
                partial(self._snoop_tables_complete, ns),
            )
            seen = self._snoop_counts(ns)
            assert set(seen) == tables, f"snoop tables of {ns}"
            for table, (_, missed) in seen.items():
                assert missed == 0, f"{table} of {ns}"

    def _snoop_tables_complete(self, ns: str) -> bool:
        live = len(self.model.live_flows(ns))
        return all(entries >= live for entries, _ in self._snoop_counts(ns).values())

    @invariant()
    def conntrack_matches_model(self) -> None:
        """As many connections have the OFFLOAD bit as the model has live flows."""
        for ns in self.model.routers():
            assert self._offload_count(ns) == len(self.model.live_flows(ns)), f"conntrack of {ns}"

    @model_step(
        ns=lambda machine: [
            name for name in machine.model.existing_netns() if machine._snoop_tables_of(name)
        ]
    )
    def snoop_counts_converge(self, ns: str) -> None:
        """After garbage collection a snoop table counts exactly the live flows."""
        count = len(self.model.live_flows(ns))
        expected = dict.fromkeys(self._snoop_tables_of(ns), (count, 0))
        wait_for(f"snoop table counts {expected}", lambda: self._snoop_counts(ns) == expected)

    def _snoop_tables_of(self, ns: str) -> set[str]:
        return self.model.namespaces[ns].snoop_tables

    def _snoop_counts(self, ns: str) -> dict[str, tuple[int, int]]:
        return {
            table.table: (table.entries or 0, table.missed or 0)
            for table in flowtable.list_flowtables(self._kernel_netns(ns))
            if table.flags & flowtable.SNOOP
        }

    # --- teardown

    def teardown(self) -> None:
        """Delete what the example created; after a passed example nothing may leak."""
        passed = sys.exc_info()[0] is None
        try:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()
        finally:
            self._cleanup.close()
        left = leak_check.find_leaks(self._kernel_state_before)
        if passed:
            assert left == [], "leaked kernel objects"


def _unloaded() -> bool:
    """Try to unload the module; return whether it succeeded."""
    try:
        modules.unload(modules.FLOWMAP_MODULE)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True
