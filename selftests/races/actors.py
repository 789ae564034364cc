# SPDX-License-Identifier: GPL-2.0-only
"""The actors of the contract's section on races: what each does in one round of a race.

An actor does its part and undoes it, so that every round begins as the one before: who adds
a flow deletes its connection first, who deletes a table puts it back.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import Object
from fixtures.guest.core import polling
from fixtures.guest.kernel import fault_injection, modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.net.netlink import NetlinkError
from fixtures.guest.race import python_race
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import TCP_PROTOCOL, Connection, Flow, frame

PROGRAM = "xdp_flow_lookup"

_FRESH = "add table inet fw\ndelete table inet fw\n"
"""Before a ruleset: whatever is there of it goes."""
_INDEX = 90
"""Of the devices that come and go."""


@dataclass(frozen=True)
class Stage:
    """What the actors work on."""

    router: Router
    talks: Sequence[Connection]
    """A UDP connection for each actor, the ports of which stay the same."""
    flows: Sequence[Flow]
    fd: int
    """A flow map of the router's namespace; closed where the module is to go."""
    program: Object | None
    """PROGRAM, where somebody runs it."""

    @property
    def namespace(self) -> str:
        """The router's."""
        return self.router.namespace

    @property
    def rules(self) -> str:
        """The router's, as a text that puts them in the place of what is there."""
        return _FRESH + client_router_server.ruleset(self.router.plan)


Make = Callable[[Stage, int], python_race.Actor]
"""Makes an actor of a stage; the number tells what of it is its own."""


def _flow_add(stage: Stage, place: int) -> python_race.Actor:
    """The second packet each way has a flow added, and that mirrored."""
    talk = stage.talks[place]

    def act(_: int) -> None:
        for _attempt in range(2):
            try:
                conntrack.delete(talk.tuple, stage.namespace)
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
            talk.exchange()
            talk.exchange()

    return act


def _teardown(stage: Stage, place: int) -> python_race.Actor:
    """A TCP connection that ends by RST while its flow is served."""

    def act(_: int) -> None:
        with ExitStack() as own:
            port = 7100 + place
            talk = connections.connect(stage.router, TCP_PROTOCOL, 4, own, server_port=port)
            talk.exchange()
            talk.exchange()
            talk.reset()

    return act


def _expiry(stage: Stage, place: int) -> python_race.Actor:
    """A flow that expires at once, and garbage collection, which a device that goes asks for."""
    talk = stage.talks[place]

    def act(_: int) -> None:
        for _attempt in range(2):
            talk.exchange()
            talk.exchange()
            with _dummy(f"gc{place}", _INDEX + place, stage.namespace):
                pass

    return act


@contextmanager
def _dummy(name: str, index: int, namespace: str) -> Iterator[None]:
    """A device for the length of a block."""
    begin = [rtnetlink.dummy(name, index), rtnetlink.up(index)]
    netlink.transact(netlink.NETLINK_ROUTE, begin, namespace)
    try:
        yield
    finally:
        netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete(index)], namespace)


def _flush(stage: Stage, _place: int) -> python_race.Actor:
    def act(_: int) -> None:
        for _attempt in range(4):
            conntrack.flush(stage.namespace)

    return act


def _source_delete(stage: Stage, _place: int) -> python_race.Actor:
    """The source table goes, and a new one comes in the same transaction."""
    rules = stage.rules

    def act(_: int) -> None:
        _commit(rules, stage.namespace)

    return act


def _commit(text: str, namespace: str) -> None:
    """Have nft carry out a text, again where others came between.

    Another transaction (ERESTART), or somebody who unloaded a statement's module (ENOENT).
    """
    passing = [os.strerror(code) for code in (errno.ERESTART, errno.ENOENT)]

    def committed() -> bool:
        try:
            nftables.run(text, namespace)
        except nftables.RulesetError as error:
            if not any(text in str(error) for text in passing):
                raise
            return False
        return True

    polling.wait_for("a transaction that nobody comes between", committed)


def _snoop(stage: Stage, place: int) -> python_race.Actor:
    name = f"spy{place}"

    def act(_: int) -> None:
        for _attempt in range(2):
            flowtable.create_snoop(name, "all", stage.namespace)
            flowtable.drop_table(name, stage.namespace)

    return act


def _map(stage: Stage, _place: int) -> python_race.Actor:
    def act(_: int) -> None:
        for _attempt in range(3):
            with bpf.flowmap(stage.namespace):
                pass

    return act


def _program_lookup(stage: Stage, place: int) -> python_race.Actor:
    talk = stage.talks[place]
    packet = frame(stage.router.client, stage.router.inside, talk.tuple)
    assert stage.program is not None
    program = stage.program.program_fd(PROGRAM)

    def act(_: int) -> None:
        with netns.entered(stage.namespace):
            prog_syscalls.run_on_packet(program, packet, repeat=500)

    return act


def _lookup(stage: Stage, _place: int) -> python_race.Actor:
    """A value must belong to its key."""

    def act(_: int) -> None:
        for _attempt in range(20):
            for flow in stage.flows:
                for direction, key in enumerate(flow.keys):
                    value = bpf.found(stage.fd, key)
                    assert value is None or value.dir == direction

    return act


def _walk(stage: Stage, _place: int) -> python_race.Actor:
    """However many flows come meanwhile, a walk ends."""

    def act(_: int) -> None:
        for _attempt in range(5):
            assert len(list(bpf.keys(stage.fd, limit=1000))) < 1000
            bpf.lookup_batch(stage.fd, 16)

    return act


def _device(stage: Stage, place: int) -> python_race.Actor:
    """A device of the source table is unregistered."""
    name = f"gone{place}"

    def act(_: int) -> None:
        with _dummy(name, _INDEX + place, stage.namespace):
            listed = flowtable.new_flowtable(
                flowtable.INET,
                client_router_server.TABLE,
                client_router_server.FLOWTABLE,
                devices=[name],
                exclusive=False,
            )
            flowtable.commit([listed], stage.namespace)

    return act


def _namespace_exit(_stage: Stage, place: int) -> python_race.Actor:
    """Another namespace ends with a snoop table in it and a map that outlives it."""
    name = f"leaving{place}"

    def act(_: int) -> None:
        netns.create(name)
        try:
            flowtable.create_snoop("spy", "all", name)
            with netns.entered(name):
                fd = bpf.flowmap_create()
        finally:
            netns.remove(name)
        os.close(fd)

    return act


def _unload(_stage: Stage, _place: int) -> python_race.Actor:
    """Unload the flow map's module where it can be; leave it loaded."""

    def act(_: int) -> None:
        modules.unload(modules.FLOWMAP)
        modules.load(modules.FLOWMAP)

    return act


def _unload_offload(stage: Stage, _place: int) -> python_race.Actor:
    """Unload the module of nf_tables' flow statement; leave it loaded, and the rules in place."""
    rules = stage.rules

    def act(_: int) -> None:
        _commit(_FRESH, stage.namespace)
        try:
            modules.unload(modules.OFFLOAD)
            modules.load(modules.OFFLOAD)
        finally:
            _commit(rules, stage.namespace)

    return act


def _failure(stage: Stage, _place: int) -> python_race.Actor:
    """A map's creation, with another one of its allocations failing in each round."""

    def create() -> None:
        with bpf.flowmap(None):
            pass

    def act(number: int) -> None:
        # The way into the namespace is not what is to fail: in /proc, where it begins, memory
        # that is not there is ENOENT (proc_pident_instantiate() in fs/proc/base.c).
        with netns.entered(stage.namespace):
            for nth in range(4 * number + 1, 4 * number + 5):
                assert fault_injection.attempt(create, nth).errno in (0, errno.ENOMEM, errno.EINVAL)

    return act


ACTORS: dict[str, Make] = {
    "flow_add": _flow_add,
    "teardown": _teardown,
    "expiry": _expiry,
    "flush": _flush,
    "source_delete": _source_delete,
    "snoop": _snoop,
    "map": _map,
    "program_lookup": _program_lookup,
    "lookup": _lookup,
    "walk": _walk,
    "device": _device,
    "namespace_exit": _namespace_exit,
    "unload": _unload,
    "unload_offload": _unload_offload,
    "failure": _failure,
}
"""By the names of the contract's list, in its order."""


_UNLOADING = {"ok", "EAGAIN", "ENOENT", "EEXIST", "EBUSY"}
"""In use; gone already, loaded again by another, or on its way by one."""

ANSWERS: dict[str, set[str]] = {
    # A batch that a change has overtaken may ask for another try.
    "walk": {"ok", "EAGAIN"},
    "unload": _UNLOADING,
    "unload_offload": _UNLOADING,
}
"""What an actor may be answered beside ``ok``, whoever is there."""

AGAINST: dict[tuple[str, str], set[str]] = {
    # No module, no type.
    ("map", "unload"): {"EINVAL"},
    ("namespace_exit", "unload"): {"EINVAL"},
    # No table, no device of it.
    ("device", "unload_offload"): {"ENOENT"},
}
"""What the first may also be answered where the second is there."""


def answers(name: str, others: Iterable[str]) -> set[str]:
    """What an actor may be answered beside others, by errno name or ``ok``."""
    allowed = {"ok"} | ANSWERS.get(name, set())
    return allowed.union(*(AGAINST.get((name, other), set()) for other in others))


ELSEWHERE: dict[tuple[str, str], str] = dict.fromkeys(
    (("program_lookup", "unload"), ("lookup", "unload"), ("walk", "unload")),
    "who reads has a map, and that has the module: selftests/races/test_module_unload.py",
)
"""Pairs that cannot meet as these actors do, and why, or where they do meet."""


def pairs() -> list[tuple[str, str]]:
    """Every pair of actors that can meet, each one beside its own kind too."""
    names = list(ACTORS)
    return [
        (one, other)
        for place, one in enumerate(names)
        for other in names[place:]
        if (one, other) not in ELSEWHERE
    ]


THREES = (
    ("flow_add", "expiry", "flush"),
    ("map", "unload", "map"),
    ("lookup", "device", "namespace_exit"),
)
"""Where history has shown that it takes three."""
