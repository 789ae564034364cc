# SPDX-License-Identifier: GPL-2.0-only
"""Actors of the contract's section RT: what each does in one round of a race.

An actor undoes in the same round what it did, so that every round starts from the same state: the
actor that adds a flow deletes its connection first, the actor that deletes a table restores it.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.core import polling
from fixtures.guest.kernel import fault_injection, modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.net.netlink import NetlinkError
from fixtures.guest.race import python_race
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic import connections
from fixtures.guest.traffic.connections import IPPROTO_TCP, Connection, Flow, build_frame

PROGRAM = "xdp_flow_lookup"

_DELETE_TABLE = "add table inet fw\ndelete table inet fw\n"
"""Prefix of a ruleset that removes the table, whether or not it exists."""
_FIRST_IFINDEX = 90
"""First ifindex of the dummy devices that actors add and remove."""


@dataclass(frozen=True)
class RaceContext:
    """Router, connections and flow map that the actors of a race work on."""

    router: Router
    connections: Sequence[Connection]
    """One UDP connection for each actor, with fixed ports."""
    flows: Sequence[Flow]
    fd: int
    """Flow map in the router's netns; closed if one of the actors unloads the module."""
    program: BpfObject | None
    """The BPF object with PROGRAM, if one of the actors runs it."""

    @property
    def namespace(self) -> str:
        """The router's netns."""
        return self.router.namespace

    @property
    def ruleset(self) -> str:
        """The router's nft ruleset, preceded by the deletion of the present one."""
        return _DELETE_TABLE + client_router_server.ruleset(self.router.config)


ActorFactory = Callable[[RaceContext, int], python_race.Actor]
"""Makes an actor for a context; the number selects the connection and the names it uses."""


def _flow_add(context: RaceContext, index: int) -> python_race.Actor:
    """Add a flow with the second packet in each direction; it is mirrored."""
    conn = context.connections[index]

    def act(_: int) -> None:
        for _attempt in range(2):
            try:
                conntrack.delete(conn.tuple, context.namespace)
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
            conn.exchange()
            conn.exchange()

    return act


def _teardown(context: RaceContext, index: int) -> python_race.Actor:
    """End a TCP connection by RST while its flow is offloaded."""

    def act(_: int) -> None:
        with ExitStack() as own:
            port = 7100 + index
            conn = connections.connect(context.router, IPPROTO_TCP, 4, own, server_port=port)
            conn.exchange()
            conn.exchange()
            conn.client_rst()

    return act


def _expiry(context: RaceContext, index: int) -> python_race.Actor:
    """Let a flow expire at once, and trigger garbage collection by deleting a device."""
    conn = context.connections[index]

    def act(_: int) -> None:
        for _attempt in range(2):
            conn.exchange()
            conn.exchange()
            with _dummy(f"gc{index}", _FIRST_IFINDEX + index, context.namespace):
                pass

    return act


@contextmanager
def _dummy(name: str, index: int, namespace: str) -> Iterator[None]:
    """Add a dummy device for the duration of the block."""
    begin = [rtnetlink.add_dummy(name, index), rtnetlink.set_up(index)]
    netlink.transact(netlink.NETLINK_ROUTE, begin, namespace)
    try:
        yield
    finally:
        netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete_link(index)], namespace)


def _flush(context: RaceContext, _index: int) -> python_race.Actor:
    """Flush conntrack."""

    def act(_: int) -> None:
        for _attempt in range(4):
            conntrack.flush(context.namespace)

    return act


def _source_delete(context: RaceContext, _index: int) -> python_race.Actor:
    """Delete the source table and create it again in the same transaction."""
    rules = context.ruleset

    def act(_: int) -> None:
        _commit(rules, context.namespace)

    return act


def _commit(script: str, namespace: str) -> None:
    """Run an nft script; repeat it after a conflict with another actor.

    Conflicts are another transaction (ERESTART) and a module that is being unloaded (ENOENT).
    """
    transient = [os.strerror(code) for code in (errno.ERESTART, errno.ENOENT)]

    def committed() -> bool:
        try:
            nftables.run(script, namespace)
        except nftables.RulesetError as error:
            if not any(message in str(error) for message in transient):
                raise
            return False
        return True

    polling.wait_for("a transaction without a conflict", committed)


def _snoop_create_delete(context: RaceContext, index: int) -> python_race.Actor:
    """Create and delete a snoop table."""
    name = f"spy{index}"

    def act(_: int) -> None:
        for _attempt in range(2):
            flowtable.create_snoop_table(name, "all", context.namespace)
            flowtable.drop_table(name, context.namespace)

    return act


def _map_create_free(context: RaceContext, _index: int) -> python_race.Actor:
    """Create and free a flow map."""

    def act(_: int) -> None:
        for _attempt in range(3):
            with bpf.open_flowmap(context.namespace):
                pass

    return act


def _program_lookup(context: RaceContext, index: int) -> python_race.Actor:
    """Run the lookup program on a packet of the connection."""
    conn = context.connections[index]
    packet = build_frame(context.router.client, context.router.lan, conn.tuple)
    assert context.program is not None
    program = context.program.program_fd(PROGRAM)

    def act(_: int) -> None:
        with netns.entered(context.namespace):
            prog_syscalls.run_on_packet(program, packet, repeat=500)

    return act


def _lookup(context: RaceContext, _index: int) -> python_race.Actor:
    """Look up each flow in both directions; a value must match its key's direction."""

    def act(_: int) -> None:
        for _attempt in range(20):
            for flow in context.flows:
                for direction, key in enumerate(flow.keys):
                    value = bpf.lookup_or_none(context.fd, key)
                    assert value is None or value.dir == direction

    return act


def _walk(context: RaceContext, _index: int) -> python_race.Actor:
    """Walk the keys and read one batch; a walk must end while flows are added."""

    def act(_: int) -> None:
        for _attempt in range(5):
            assert len(list(bpf.iterate_keys(context.fd, limit=1000))) < 1000
            bpf.lookup_batch(context.fd, 16)

    return act


def _device_unregister(context: RaceContext, index: int) -> python_race.Actor:
    """Add a device to the source table and unregister it."""
    name = f"race-dev{index}"

    def act(_: int) -> None:
        with _dummy(name, _FIRST_IFINDEX + index, context.namespace):
            update = flowtable.new_flowtable(
                flowtable.INET,
                client_router_server.NFT_TABLE,
                client_router_server.FLOWTABLE,
                devices=[name],
                exclusive=False,
            )
            flowtable.commit_batch([update], context.namespace)

    return act


def _namespace_exit(_context: RaceContext, index: int) -> python_race.Actor:
    """Remove a netns that has a snoop table and a flow map, which outlives it."""
    name = f"race-exit{index}"

    def act(_: int) -> None:
        netns.create(name)
        try:
            flowtable.create_snoop_table("spy", "all", name)
            with netns.entered(name):
                fd = bpf.flowmap_create()
        finally:
            netns.remove(name)
        os.close(fd)

    return act


def _unload_flowmap(_context: RaceContext, _index: int) -> python_race.Actor:
    """Unload the flow map module unless it is in use; leave it loaded."""

    def act(_: int) -> None:
        modules.unload(modules.FLOWMAP_MODULE)
        modules.load(modules.FLOWMAP_MODULE)

    return act


def _unload_nft_flow_offload(context: RaceContext, _index: int) -> python_race.Actor:
    """Unload the module of the flow statement (nft_flow_offload); leave it loaded."""
    rules = context.ruleset

    def act(_: int) -> None:
        _commit(_DELETE_TABLE, context.namespace)
        try:
            modules.unload(modules.NFT_FLOW_OFFLOAD_MODULE)
            modules.load(modules.NFT_FLOW_OFFLOAD_MODULE)
        finally:
            _commit(rules, context.namespace)

    return act


def _alloc_failure(context: RaceContext, _index: int) -> python_race.Actor:
    """Create a flow map with a different allocation failing in each round."""

    def create() -> None:
        with bpf.open_flowmap(None):
            pass

    def act(round_number: int) -> None:
        # Enter the netns before arming fault injection: an allocation failure below /proc is
        # ENOENT (proc_pident_instantiate() in fs/proc/base.c).
        with netns.entered(context.namespace):
            for nth in range(4 * round_number + 1, 4 * round_number + 5):
                assert fault_injection.fail_nth_allocation(create, nth).errno in (
                    0,
                    errno.ENOMEM,
                    errno.EINVAL,
                )

    return act


ACTORS: dict[str, ActorFactory] = {
    "flow_add": _flow_add,
    "teardown": _teardown,
    "expiry": _expiry,
    "flush": _flush,
    "source_delete": _source_delete,
    "snoop_create_delete": _snoop_create_delete,
    "map_create_free": _map_create_free,
    "program_lookup": _program_lookup,
    "lookup": _lookup,
    "walk": _walk,
    "device_unregister": _device_unregister,
    "namespace_exit": _namespace_exit,
    "unload_flowmap": _unload_flowmap,
    "unload_nft_flow_offload": _unload_nft_flow_offload,
    "alloc_failure": _alloc_failure,
}
"""Actor factories by name, in the order of the contract's list."""


_UNLOAD_OUTCOMES = {"ok", "EAGAIN", "ENOENT", "EEXIST", "EBUSY"}
"""In use (EAGAIN); unloaded (ENOENT), loaded (EEXIST) or being loaded (EBUSY) by another actor."""

ALLOWED_OUTCOMES: dict[str, set[str]] = {
    # EAGAIN: the table changed during the batch lookup, which has to be repeated.
    "walk": {"ok", "EAGAIN"},
    "unload_flowmap": _UNLOAD_OUTCOMES,
    "unload_nft_flow_offload": _UNLOAD_OUTCOMES,
}
"""Outcomes of an actor in addition to ``ok``, whichever actors it races against."""

ALLOWED_OUTCOMES_AGAINST: dict[tuple[str, str], set[str]] = {
    # Without the module the map type does not exist.
    ("map_create_free", "unload_flowmap"): {"EINVAL"},
    ("namespace_exit", "unload_flowmap"): {"EINVAL"},
    # The source table is absent while its module is unloaded.
    ("device_unregister", "unload_nft_flow_offload"): {"ENOENT"},
}
"""Further outcomes of the first actor when it races against the second."""


def allowed_outcomes(name: str, others: Iterable[str]) -> set[str]:
    """Return the outcomes an actor may have with others, as errno names or ``ok``."""
    allowed = {"ok"} | ALLOWED_OUTCOMES.get(name, set())
    return allowed.union(*(ALLOWED_OUTCOMES_AGAINST.get((name, other), set()) for other in others))


EXCLUDED_PAIRS: dict[tuple[str, str], str] = dict.fromkeys(
    (
        ("program_lookup", "unload_flowmap"),
        ("lookup", "unload_flowmap"),
        ("walk", "unload_flowmap"),
    ),
    "a reader holds a map, which pins the module: selftests/races/test_module_unload.py",
)
"""Pairs that cannot race, with the reason and the test of the same interaction."""


def covered_pairs() -> list[tuple[str, str]]:
    """Return every pair of actors that can race, including each actor with itself."""
    names = list(ACTORS)
    return [
        (one, other)
        for index, one in enumerate(names)
        for other in names[index:]
        if (one, other) not in EXCLUDED_PAIRS
    ]


TRIPLES = (
    ("flow_add", "expiry", "flush"),
    ("map_create_free", "unload_flowmap", "map_create_free"),
    ("lookup", "device_unregister", "namespace_exit"),
)
"""Triples of actors that took part in past kernel bugs."""
