# SPDX-License-Identifier: GPL-2.0-only
"""Races at full speed: hundreds of rounds by the native race engine, without Python in the loop."""

import contextlib
import ctypes
import errno
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, dummy_map_module
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import scale, wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns
from fixtures.guest.pytest_plugin.plugin_api import require_own_module
from fixtures.guest.race import native_race
from fixtures.guest.race.native_race_plan import Thread
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import Connection, Flow, frame

pytestmark = pytest.mark.soak

SANITIZER_TIMEOUT_SCALE = 10
"""Timeout scale at and above which the kernel has sanitizers."""
ROUNDS = 200 if scale() < SANITIZER_TIMEOUT_SCALE else 40
JITTER = 50e-6 if scale() < SANITIZER_TIMEOUT_SCALE else 400e-6
"""Seconds, about as long as closing a map and creating the next one takes.

With less jitter the module is mostly unloaded between two maps, and the rounds are spent on
loading it again.
"""
DEADLINE = 120
NO_FLOW = errno.ENOENT
"""The errno of a lookup miss, and of the end of a key walk."""


@pytest.fixture(autouse=True)
def _expedited_grace_periods(cleanup: ExitStack) -> None:
    """Expedite grace periods: rounds of unload or map creation mostly wait for them."""
    rcu_expedited = Path("/sys/kernel/rcu_expedited")
    cleanup.callback(rcu_expedited.write_text, rcu_expedited.read_text())
    rcu_expedited.write_text("1\n")


def _map_create_free(attributes: ctypes.Structure, namespace: str | None = None) -> Thread:
    """Plan: create a map and free it."""
    thread = Thread("maps", 0, namespace)
    thread.close(thread.bpf(bpf_attr.Command.MAP_CREATE, attributes, opens=True))
    return thread


def _replace_map(attributes: ctypes.Structure) -> Thread:
    """Plan: close the map of the previous round and create the next.

    The module is referenced nearly all the time.  So unloading races with the drop of the last
    reference and with the next first one, and few rounds wait for the module to be loaded again.
    """
    thread = Thread("maps", 0)
    current = thread.kept()
    thread.close(current, forgive=errno.EBADF)
    thread.bpf(bpf_attr.Command.MAP_CREATE, attributes, into=current)
    return thread


def _unload_and_load(name: str) -> Thread:
    """Plan: unload the module unless it is in use, and load it again."""
    thread = Thread("unload", 1)
    thread.unload(name)
    thread.load(modules.file_of(name))
    return thread


def _try_unload(name: str) -> bool:
    try:
        modules.unload(name)
    except BlockingIOError:
        return False
    return True


@pytest.mark.clause("MM-7", "MM-4", "RT-1", "RT-3")
@pytest.mark.deadline(DEADLINE)
@pytest.mark.parametrize("name", [modules.FLOWMAP, dummy_map_module.FIRST])
def test_create_and_free_against_unload(flowmap_module: str, name: str) -> None:
    """Map creation racing unload succeeds or gives EINVAL; unload succeeds or gives EAGAIN."""
    require_own_module(name)
    attributes = bpf.flowmap_attributes()
    if name != flowmap_module:
        attributes = bpf_attr.MapCreate(
            map_type=bpf.flowmap_type(), key_size=4, value_size=8, max_entries=4
        )
        modules.unload(flowmap_module)
        modules.load(name)
    with modules.autoload_disabled():
        threads = [_replace_map(attributes), _unload_and_load(name)]
        report = native_race.run(threads, 5 * ROUNDS, jitter=JITTER)
    report.require({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    assert modules.loaded(name)
    wait_for("the module to be unloadable", lambda: _try_unload(name))


def _flow_add_del(conn: Connection) -> Thread:
    """Plan: send a packet each way, which adds a flow, and flush conntrack."""
    router = conn.router
    request = frame(router.client, router.inside, conn.tuple)
    reply = frame(router.server, router.outside, conn.tuple.reversed())
    thread = Thread("flows", 0)
    thread.send(router.client.index, [request], router.client.namespace)
    thread.send(router.server.index, [reply], router.server.namespace)
    thread.netlink(
        netlink.NETLINK_NETFILTER, netlink.request([conntrack.flushing()]), router.namespace
    )
    return thread


def _lookups(fd: int, flow: Flow, times: int, cpu: int = 1) -> Thread:
    """Plan: look up both directions; a value must match its key's direction."""
    thread = Thread(f"lookup {cpu}", cpu, times=times)
    for direction, key in enumerate(flow.keys):
        value = thread.buffer(uapi.Value())
        links = {"key": thread.buffer(key), "value": value}
        attributes = bpf_attr.Element(map_fd=fd)
        thread.bpf(bpf_attr.Command.MAP_LOOKUP_ELEM, attributes, links, forgive=NO_FLOW, skip=1)
        thread.expect(value, uapi.Value.dir.offset, bytes([direction]))
    return thread


def _assert_mirroring_works(conn: Connection, fd: int) -> None:
    """Check that lookups and flush work after the race as before it."""
    for sock in (conn.client, conn.server):
        _drain(sock)
    flow = conn.offloaded()
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    conntrack.flush(conn.router.namespace)
    wait_for("the flow to be a miss", lambda: bpf.found(fd, flow.original) is None)


def _drain(sock: socket.socket) -> None:
    """Discard the payloads of the crafted frames from a socket."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1 << 16)
    sock.settimeout(timeout)


@pytest.mark.clause("RT-1", "SN-6", "FM-9")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_lookup(own_flowmap: int, talk: Connection) -> None:
    """Lookups racing flow addition and deletion hit or miss, and see both."""
    flow, times = talk.offloaded(), 20
    threads = [_flow_add_del(talk), _lookups(own_flowmap, flow, times)]
    report = native_race.run(threads, ROUNDS, inherited=[own_flowmap])
    report.require({"flows": {"ok"}, "lookup 1": {"ok"}})
    # Both hits and misses occurred.
    assert 0 < report.forgiven["lookup 1"] < 2 * times * ROUNDS, str(report)
    _assert_mirroring_works(talk, own_flowmap)


@pytest.mark.clause("RT-1", "RT-2", "FM-9")
@pytest.mark.deadline(DEADLINE)
def test_lookups_against_lookups(own_flowmap: int, talk: Connection) -> None:
    """Concurrent lookups of one flow always hit, and return its direction.

    Each lookup refreshes fields of the value that both lookups return.
    """
    # A syscall lookup does not refresh a flow's timeout.
    timeout = {"netfilter/nf_flowtable_udp_timeout": 3600}
    netns.set_sysctls(talk.router.namespace, timeout)
    flow = talk.offloaded()
    # Enough lookups for an overlap even if another process preempts one of the threads.
    threads = [_lookups(own_flowmap, flow, 200, cpu) for cpu in (0, 1)]
    report = native_race.run(threads, ROUNDS, inherited=[own_flowmap])
    report.require({thread.name: {"ok"} for thread in threads})
    assert not any(report.forgiven.values()), str(report)
    _assert_mirroring_works(talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-3", "MM-7")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_map_create_and_free(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """Flow addition and deletion racing map creation and free keep being mirrored."""
    talk.offloaded()
    maps = _map_create_free(bpf.flowmap_attributes(), own_router.namespace)
    maps.cpu = 1
    report = native_race.run([_flow_add_del(talk), maps], ROUNDS)
    report.require({"flows": {"ok"}, "maps": {"ok"}})
    _assert_mirroring_works(talk, own_flowmap)


@pytest.mark.clause("RT-1", "SN-8", "SN-9")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_snoop_tables(
    own_router: Router, own_flowmap: int, talk: Connection
) -> None:
    """Flow addition and deletion racing snoop table creation and deletion keep being mirrored."""
    talk.offloaded()
    tables = Thread("tables", 1)
    table = flowtable.new_table(flowtable.INET, "spy")
    spy = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=flowtable.SNOOP)
    for messages in ([table, spy], [flowtable.delete_table(flowtable.INET, "spy")]):
        request = flowtable.request(messages)
        tables.netlink(netlink.NETLINK_NETFILTER, request, own_router.namespace)
    report = native_race.run([_flow_add_del(talk), tables], ROUNDS)
    report.require({"flows": {"ok"}, "tables": {"ok"}})
    _assert_mirroring_works(talk, own_flowmap)


@pytest.mark.clause("RT-1", "FM-6")
@pytest.mark.deadline(DEADLINE)
def test_flows_that_come_and_go_against_walks(own_flowmap: int, talk: Connection) -> None:
    """Flow addition and deletion racing BPF_MAP_GET_NEXT_KEY keep being mirrored."""
    talk.offloaded()
    walk = Thread("walk", 1, times=20)
    # The first key, then the key after it.
    first, second = walk.buffer(uapi.Key()), walk.buffer(uapi.Key())
    attributes = bpf_attr.Element(map_fd=own_flowmap)
    step = bpf_attr.Command.MAP_GET_NEXT_KEY
    walk.bpf(step, attributes, {"value": first}, forgive=NO_FLOW, skip=1)
    walk.bpf(step, attributes, {"key": first, "value": second}, forgive=NO_FLOW)
    report = native_race.run([_flow_add_del(talk), walk], ROUNDS, inherited=[own_flowmap])
    report.require({"flows": {"ok"}, "walk": {"ok"}})
    _assert_mirroring_works(talk, own_flowmap)
