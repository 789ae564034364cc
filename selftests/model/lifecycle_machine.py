# SPDX-License-Identifier: GPL-2.0-only
"""The state machine: each step is done to the kernel and to the model, then all readers asked.

A step's arguments are names out of the model, so that the sequence that Hypothesis prints is
code: put into a test it does the same again.
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
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.runtime import leak_check
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Plan, Port, Router
from fixtures.guest.traffic.connections import Connection, connect
from selftests.model.reference_model import PORTS, Flow, Map, Space, World

F = TypeVar("F", bound=Callable[..., Any])

_SPACES = ("one", "two")
_IDLE = ("idle",)
_SNOOPS = ("spy1", "spy2")
_NAT = (None, "masquerade", "snat+dnat")
_ROOMS = (1024, 1024, 1)
_MOST_FLOWS = 8
_MOST_MAPS = 4

# Longer than an example takes on the slowest machine: no flow ends by itself.
_NEVER = {"netfilter/nf_flowtable_udp_timeout": 3600, "netfilter/nf_flowtable_tcp_timeout": 3600}


def _among(choose: Callable[["Life"], Sequence[Any]], life: "Life") -> st.SearchStrategy[Any]:
    return st.sampled_from(choose(life))


def step(**choices: Callable[["Life"], Sequence[Any]]) -> Callable[[F], F]:
    """A rule whose arguments are drawn from what the model has; not taken where it has none."""
    drawn = {name: st.runner().flatmap(partial(_among, choose)) for name, choose in choices.items()}

    def decorate(function: F) -> F:
        ready = precondition(lambda life: all(choose(life) for choose in choices.values()))
        # The library's overloads take strategies by name, not out of a dictionary.
        decorated: Any = ready(cast(Any, rule)(**drawn)(function))
        return cast(F, decorated)

    return decorate


class Life(RuleBasedStateMachine):
    """A machine with routers, namespaces, tables, flows, maps and the module."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self._routers: dict[str, Router] = {}
        self._talks: dict[str, Connection] = {}
        self._fds: dict[str, int] = {}
        self._made = 0
        self._cleanup = ExitStack()
        for name in (modules.FLOWTABLE_INET, modules.OFFLOAD):
            modules.probe(name)
        if not modules.loaded(modules.FLOWMAP):
            modules.load(modules.FLOWMAP)
        self._before = leak_check.take()
        # Whether a creation may load the module is tested elsewhere; modprobe takes long.
        self._cleanup.enter_context(modules.autoload_disabled())

    def _name(self, what: str) -> str:
        self._made += 1
        return f"{what}{self._made}"

    def _inside(self, space: str) -> str:
        """The kernel's name of a namespace."""
        return f"{space}-router" if self.world.spaces[space].router else space

    def _port(self, space: str, port: str) -> Port:
        router = self._routers[space]
        return router.inside if port == "inside" else router.outside

    # --- namespaces

    @initialize(nat=st.sampled_from(_NAT))
    def begin(self, nat: str | None) -> None:
        """There is a router, with a TCP connection over IPv4 and a UDP one over IPv6."""
        self.build("one", nat)
        for way in self.world.ways()[::3]:
            self.offload(way)

    @step(
        space=lambda life: [name for name in _SPACES if name not in life.world.spaces],
        nat=lambda _: _NAT,
    )
    def build(self, space: str, nat: str | None) -> None:
        """A router with its two hosts."""
        plan = Plan(nat=nat, tables="split", name=space)
        self._routers[space] = client_router_server.build(plan, self._cleanup)
        self.world.spaces[space] = Space(router=True, tables=set(client_router_server.SPLIT))
        netns.set_sysctls(self._inside(space), _NEVER)

    @step(space=lambda life: [name for name in _IDLE if name not in life.world.spaces])
    def add_namespace(self, space: str) -> None:
        """A namespace in which there never is a flow."""
        netns.create(space)
        self._cleanup.callback(netns.remove_if_there, space)
        self.world.spaces[space] = Space(router=False)

    @step(space=lambda life: life.world.existing())
    def leave(self, space: str) -> None:
        """A namespace ends with all that is in it."""
        netns.remove(self._inside(space))
        self.world.leave(space)
        fds = [fd for name, fd in self._fds.items() if self.world.maps[name].space == space]
        wait_for("its maps to be empty", lambda: not any(list(bpf.keys(fd)) for fd in fds))

    # --- connections

    @precondition(lambda life: len(life.world.flows) < _MOST_FLOWS)
    @step(way=lambda life: life.world.ways())
    def offload(self, way: tuple[str, int, int]) -> None:
        """A new connection, offloaded."""
        space, protocol, version = way
        name = self._name("flow")
        talk = connect(
            self._routers[space],
            protocol,
            version,
            self._cleanup,
            server_port=7000 + self._made,
        )
        self._talks[name] = talk
        self.world.flows[name] = Flow(space, protocol, version, self._served(talk))

    @step(flow=lambda life: life.world.revivable())
    def revive(self, flow: str) -> None:
        """A connection whose flow has ended goes on, and is offloaded again."""
        known = self.world.flows[flow]
        known.keys = self._served(self._talks[flow])
        known.live = known.tracked = True

    @staticmethod
    def _served(talk: Connection) -> tuple[bytes, bytes]:
        flow = talk.offloaded()
        return bytes(flow.original), bytes(flow.reply)

    @step(flow=lambda life: life.world.live())
    def conntrack_delete(self, flow: str) -> None:
        """conntrack -D."""
        known = self.world.flows[flow]
        conntrack.delete(self._talks[flow].tuple, self._inside(known.space))
        known.live = known.tracked = False

    @step(space=lambda life: life.world.routers())
    def conntrack_flush(self, space: str) -> None:
        """conntrack -F."""
        conntrack.flush(self._inside(space))
        self.world.end(space, untracked=True)

    # --- devices

    @step(
        space=lambda life: [name for name in life.world.routers() if not life._down(name)],
        port=lambda _: PORTS,
    )
    def device_down(self, space: str, port: str) -> None:
        """ip link set down."""
        self._send(space, rtnetlink.down(self._port(space, port).index))
        self.world.spaces[space].down.add(port)
        # What was masqueraded as its address is forgotten (nf_nat_masquerade.c).
        self.world.end(space, untracked=True)

    @step(space=lambda life: [name for name in life.world.routers() if life._down(name)])
    def device_up(self, space: str) -> None:
        """ip link set up, with what went with the device: IPv6 addresses and neighbours."""
        router = self._routers[space]
        (port,) = self.world.spaces[space].down
        own = self._port(space, port)
        other = router.client if port == "inside" else router.server
        self._send(
            space,
            rtnetlink.up(own.index),
            rtnetlink.address(own.index, own.addresses[6], 64),
            *(rtnetlink.neighbour(own.index, host, other.mac) for host in other.addresses.values()),
        )
        for end in (own, other):
            wait_for(f"{end.device} to send", partial(rtnetlink.sends, end.index, end.namespace))
        self.world.spaces[space].down.clear()

    def _down(self, space: str) -> bool:
        return bool(self.world.spaces[space].down)

    def _send(self, space: str, *messages: Any) -> None:
        netlink.transact(netlink.NETLINK_ROUTE, messages, self._inside(space))

    # --- source tables

    def _pairs(self, *, there: bool) -> list[tuple[str, str]]:
        return [
            (space, table)
            for space in self.world.routers()
            for table in client_router_server.SPLIT
            if (table in self.world.spaces[space].tables) is there
        ]

    @step(where=lambda life: life._pairs(there=True))
    def drop_table(self, where: tuple[str, str]) -> None:
        """nft delete table."""
        space, table = where
        flowtable.drop_table(table, self._inside(space), client_router_server.SPLIT[table].family)
        self.world.drop_table(space, table)
        self._served_no_longer(space)

    @step(where=lambda life: life._pairs(there=False))
    def restore_table(self, where: tuple[str, str]) -> None:
        """The source table again, with its rule."""
        space, table = where
        nftables.run(client_router_server.source_table(table), self._inside(space))
        self.world.spaces[space].tables.add(table)

    @step(space=lambda life: life.world.routers())
    def reload(self, space: str) -> None:
        """The whole ruleset anew, in one transaction."""
        rules = client_router_server.ruleset(self._routers[space].plan)
        nftables.run(f"flush ruleset\n{rules}", self._inside(space))
        self.world.reload(space)
        self._served_no_longer(space)

    def _served_no_longer(self, space: str) -> None:
        """nf_tables destroys tables in a work queue; until then they serve their flows."""
        wait_for("the flows to end", lambda: self._offloaded(space) == len(self.world.live(space)))

    def _offloaded(self, space: str) -> int:
        return len(conntrack.offloaded(self._inside(space)))

    # --- snoop tables

    def _snoops(self, *, there: bool) -> list[tuple[str, str]]:
        return [
            (space, snoop)
            for space in self.world.existing()
            for snoop in _SNOOPS
            if (snoop in self.world.spaces[space].snoops) is there
        ]

    @step(where=lambda life: life._snoops(there=False))
    def create_snoop(self, where: tuple[str, str]) -> None:
        """A snoop table."""
        space, snoop = where
        flowtable.create_snoop(snoop, "all", self._inside(space))
        self.world.spaces[space].snoops.add(snoop)

    @step(where=lambda life: life._snoops(there=True))
    def drop_snoop(self, where: tuple[str, str]) -> None:
        """It goes again."""
        space, snoop = where
        flowtable.drop_table(snoop, self._inside(space))
        self.world.spaces[space].snoops.remove(snoop)

    # --- maps and the module

    @precondition(lambda life: len(life.world.maps) < _MOST_MAPS)
    @step(space=lambda life: life.world.existing(), room=lambda _: _ROOMS)
    def open_map(self, space: str, room: int) -> None:
        """A flow map of a namespace; refused where there is no module."""
        with netns.entered(self._inside(space)):
            if code := self.world.creation():
                with refused(code):
                    bpf.flowmap_create(room)
                return
            fd = bpf.flowmap_create(room)
        name = self._name("map")
        self._fds[name] = fd
        self.world.maps[name] = Map(space, room)

    @step(name=lambda life: list(life.world.maps))
    def close_map(self, name: str) -> None:
        """Nobody holds the map any more."""
        os.close(self._fds.pop(name))
        del self.world.maps[name]

    @rule()
    def unload(self) -> None:
        """rmmod."""
        if code := self.world.unload():
            with refused(code):
                modules.unload(modules.FLOWMAP)
            return
        # A map that was closed just now is freed after a grace period.
        wait_for("the module to be unloadable", _unloaded)
        self.world.loaded = False

    @precondition(lambda life: not life.world.loaded)
    @rule()
    def load(self) -> None:
        """insmod."""
        modules.load(modules.FLOWMAP)
        self.world.loaded = True

    # --- what all readers see

    @invariant()
    def maps_hold_the_flows_of_their_namespace(self) -> None:
        """Lookup by direction, walk and batch agree with the model."""
        for name, fd in self._fds.items():
            known = self.world.maps[name]
            expected = self.world.keys(known.space)
            seen = [bytes(key) for key in bpf.keys(fd, limit=1000)]
            if known.room >= _MOST_FLOWS:
                assert sorted(seen) == expected, f"the walk of {name}"
            else:
                # Whom there is no room for is not said, and room is free after a grace period.
                assert set(seen) <= set(expected), f"the walk of {name}"
                assert len(seen) <= 2 * known.room
            pairs, _, ended = bpf.lookup_batch(fd, 2 * _MOST_FLOWS + 1)
            assert ended
            assert sorted(bytes(key) for key, _ in pairs) == sorted(seen), f"the batch of {name}"
            for flow in self.world.flows.values():
                self._look_up(name, fd, flow, set(seen))

    def _look_up(self, name: str, fd: int, flow: Flow, held: set[bytes]) -> None:
        answers = [bpf.found(fd, uapi.Key.from_buffer_copy(key)) for key in flow.keys]
        wanted = [way if key in held else None for way, key in enumerate(flow.keys)]
        got = [None if value is None else value.dir for value in answers]
        assert got == wanted, f"{flow} in {name}"
        assert wanted in ([0, 1], [None, None]), f"half of {flow} is in {name}"

    @invariant()
    def snoop_tables_are_those_made_and_miss_nothing(self) -> None:
        """Each counts at least what is being served."""
        for space in self.world.existing():
            seen = self._counts(space)
            assert set(seen) == self.world.spaces[space].snoops, f"snoop tables of {space}"
            for snoop, (entries, missed) in seen.items():
                assert missed == 0, f"{snoop} of {space}"
                assert entries >= len(self.world.live(space)), f"{snoop} of {space}"

    @invariant()
    def conntrack_agrees(self) -> None:
        """So many connections have the OFFLOAD bit."""
        for space in self.world.routers():
            assert self._offloaded(space) == len(self.world.live(space)), f"conntrack of {space}"

    @step(space=lambda life: [name for name in life.world.existing() if life._snoops_of(name)])
    def count(self, space: str) -> None:
        """Once the garbage collection has been round, a snoop table counts what is served."""
        count = len(self.world.live(space))
        expected = dict.fromkeys(self._snoops_of(space), (count, 0))
        wait_for(f"counts of {expected}", lambda: self._counts(space) == expected)

    def _snoops_of(self, space: str) -> set[str]:
        return self.world.spaces[space].snoops

    def _counts(self, space: str) -> dict[str, tuple[int, int]]:
        return {
            table.table: (table.entries or 0, table.missed or 0)
            for table in flowtable.flowtables(self._inside(space))
            if table.flags & flowtable.SNOOP
        }

    # --- the end

    def teardown(self) -> None:
        """Take down what the example made; after one that passed nothing may stay."""
        passed = sys.exc_info()[0] is None
        try:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()
        finally:
            self._cleanup.close()
        left = leak_check.compare(self._before)
        if passed:
            assert left == [], "left behind"


def _unloaded() -> bool:
    try:
        modules.unload(modules.FLOWMAP)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True
