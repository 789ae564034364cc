# SPDX-License-Identifier: GPL-2.0-only
"""Races at full speed: hundreds of rounds of what the native engine can do by itself."""

import contextlib
import ctypes
import errno
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import scale, wait_for
from fixtures.guest.kernel import dummy_map_module, modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns
from fixtures.guest.pytest_plugin.fixtures import require_own_module
from fixtures.guest.race import native_race
from fixtures.guest.race.native_race_plan import Thread
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import Connection, Flow, frame

pytestmark = pytest.mark.campaign

SANITIZERS = 10
"""Deadline scale from which on a kernel is one with sanitizers."""
ROUNDS = 200 if scale() < SANITIZERS else 40
JITTER = 50e-6 if scale() < SANITIZERS else 400e-6
"""Seconds, about what it takes to let go of a map and create the next: with less the module has
mostly gone before the next map is there, and the rounds are spent on loading it again."""
DEADLINE = 120
ENDED = errno.ENOENT
"""What a lookup says of a flow that is not there."""


@pytest.fixture(autouse=True)
def _quick_grace_periods(cleanup: ExitStack) -> None:
    """Without this a round of unloading, or creating a flow map, is mostly waiting."""
    switch = Path("/sys/kernel/rcu_expedited")
    cleanup.callback(switch.write_text, switch.read_text())
    switch.write_text("1\n")


def _maps(attributes: ctypes.Structure, namespace: str | None = None) -> Thread:
    """Create a map and free it."""
    thread = Thread("maps", 0, namespace)
    thread.close(thread.bpf(bpf_attr.Command.MAP_CREATE, attributes, opens=True))
    return thread


def _one_after_another(attributes: ctypes.Structure) -> Thread:
    """Let go of the last round's map and create the next.

    The module is held nearly always: what meets the unloading is the last reference that
    goes and the first that comes, and few rounds wait for the module to be loaded again.
    """
    thread = Thread("maps", 0)
    current = thread.kept()
    thread.close(current, forgive=errno.EBADF)
    thread.bpf(bpf_attr.Command.MAP_CREATE, attributes, into=current)
    return thread


def _unload_and_load(name: str) -> Thread:
    """Unload where it can be; leave the module loaded."""
    thread = Thread("unload", 1)
    thread.unload(name)
    thread.load(modules.file_of(name))
    return thread


def _unloadable(name: str) -> bool:
    try:
        modules.unload(name)
    except BlockingIOError:
        return False
    return True


@pytest.mark.clause("MM-7", "MM-4", "RT-1", "RT-3")
@pytest.mark.deadline(DEADLINE)
@pytest.mark.parametrize("name", [modules.FLOWMAP, dummy_map_module.FIRST])
def test_create_and_free_against_unload(flowmap_module: str, name: str) -> None:
    require_own_module(name)
    attributes = bpf.flowmap_attributes()
    if name != flowmap_module:
        attributes = bpf_attr.MapCreate(
            map_type=bpf.flowmap_type(), key_size=4, value_size=8, max_entries=4
        )
        modules.unload(flowmap_module)
        modules.load(name)
    with modules.autoload_disabled():
        threads = [_one_after_another(attributes), _unload_and_load(name)]
        report = native_race.run(threads, 5 * ROUNDS, jitter=JITTER)
    report.require({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    assert modules.loaded(name)
    wait_for("the module to be unloadable", lambda: _unloadable(name))


def _flows(talk: Connection) -> Thread:
    """Send a packet each way, which adds a flow, and end the connection."""
    router = talk.router
    there = frame(router.client, router.inside, talk.tuple)
    back = frame(router.server, router.outside, talk.tuple.reversed())
    thread = Thread("flows", 0)
    thread.send(router.client.index, [there], router.client.namespace)
    thread.send(router.server.index, [back], router.server.namespace)
    thread.netlink(
        netlink.NETLINK_NETFILTER, netlink.request([conntrack.flushing()]), router.namespace
    )
    return thread


def _lookups(fd: int, flow: Flow, times: int, cpu: int = 1) -> Thread:
    """Look both directions up; a value must belong to its key."""
    thread = Thread(f"lookup {cpu}", cpu, times=times)
    for direction, key in enumerate(flow.keys):
        value = thread.buffer(uapi.Value())
        links = {"key": thread.buffer(key), "value": value}
        attributes = bpf_attr.Element(map_fd=fd)
        thread.bpf(bpf_attr.Command.MAP_LOOKUP_ELEM, attributes, links, forgive=ENDED, skip=1)
        thread.expect(value, uapi.Value.dir.offset, bytes([direction]))
    return thread


def _settled(talk: Connection, fd: int) -> None:
    """After the race the map works as before it."""
    for sock in (talk.client, talk.server):
        _drain(sock)
    flow = talk.offloaded()
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    conntrack.flush(talk.router.namespace)
    wait_for("the flows to be gone", lambda: bpf.found(fd, flow.original) is None)


def _drain(sock: socket.socket) -> None:
    """Take out what the crafted frames have brought."""
    patience = sock.gettimeout()
    sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1 << 16)
    sock.settimeout(patience)


@pytest.mark.clause("RT-1", "SN-6", "FM-9")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_lookup(own_flowmap: int, talk: Connection) -> None:
    flow, times = talk.offloaded(), 20
    threads = [_flows(talk), _lookups(own_flowmap, flow, times)]
    report = native_race.run(threads, ROUNDS, inherited=[own_flowmap])
    report.require({"flows": {"ok"}, "lookup 1": {"ok"}})
    # Both were seen: a flow that is there, and one that is not.
    assert 0 < report.forgiven["lookup 1"] < 2 * times * ROUNDS, str(report)
    _settled(talk, own_flowmap)


@pytest.mark.clause("RT-1", "RT-2", "FM-9")
@pytest.mark.deadline(DEADLINE)
def test_lookups_against_lookups(own_flowmap: int, talk: Connection) -> None:
    """Each writes what changes into the value that both return."""
    # User space's lookups do not keep a flow alive.
    timeout = {"netfilter/nf_flowtable_udp_timeout": 3600}
    netns.set_sysctls(talk.router.namespace, timeout)
    flow = talk.offloaded()
    # Long enough to meet also where another process has the machine now and then.
    threads = [_lookups(own_flowmap, flow, 200, cpu) for cpu in (0, 1)]
    report = native_race.run(threads, ROUNDS, inherited=[own_flowmap])
    report.require({thread.name: {"ok"} for thread in threads})
    assert not any(report.forgiven.values()), str(report)
    _settled(talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-3", "MM-7")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_map_create_and_free(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    talk.offloaded()
    maps = _maps(bpf.flowmap_attributes(), own_router.namespace)
    maps.cpu = 1
    report = native_race.run([_flows(talk), maps], ROUNDS)
    report.require({"flows": {"ok"}, "maps": {"ok"}})
    _settled(talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-8", "SN-9")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_snoop_tables(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    talk.offloaded()
    spies = Thread("tables", 1)
    table = flowtable.new_table(flowtable.INET, "spy")
    spy = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=flowtable.SNOOP)
    for messages in ([table, spy], [flowtable.delete_table(flowtable.INET, "spy")]):
        request = flowtable.request(messages)
        spies.netlink(netlink.NETLINK_NETFILTER, request, own_router.namespace)
    report = native_race.run([_flows(talk), spies], ROUNDS)
    report.require({"flows": {"ok"}, "tables": {"ok"}})
    _settled(talk, own_flowmap)


@pytest.mark.clause("RT-1", "FM-6")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_walks(own_flowmap: int, talk: Connection) -> None:
    talk.offloaded()
    walk = Thread("walk", 1, times=20)
    # From the start, and on from what that gave.
    first, second = walk.buffer(uapi.Key()), walk.buffer(uapi.Key())
    attributes = bpf_attr.Element(map_fd=own_flowmap)
    step = bpf_attr.Command.MAP_GET_NEXT_KEY
    walk.bpf(step, attributes, {"value": first}, forgive=ENDED, skip=1)
    walk.bpf(step, attributes, {"key": first, "value": second}, forgive=ENDED)
    report = native_race.run([_flows(talk), walk], ROUNDS, inherited=[own_flowmap])
    report.require({"flows": {"ok"}, "walk": {"ok"}})
    _settled(talk, own_flowmap)
