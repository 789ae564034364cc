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
from fixtures.guest.core.polling import deadline_scale, wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import conntrack, flowtable, netlink, netns
from fixtures.guest.pytest_plugin.plugin_api import require_suite_module
from fixtures.guest.race import native_race
from fixtures.guest.race.native_race_plan import ThreadPlan
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import Connection, Flow, build_frame

pytestmark = pytest.mark.soak

SANITIZER_TIMEOUT_SCALE = 10
"""Timeout scale at and above which the kernel has sanitizers."""
ROUNDS = 200 if deadline_scale() < SANITIZER_TIMEOUT_SCALE else 40
JITTER = 50e-6 if deadline_scale() < SANITIZER_TIMEOUT_SCALE else 400e-6
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


def _map_create_free(attributes: ctypes.Structure, namespace: str | None = None) -> ThreadPlan:
    """Plan: create a map and free it."""
    thread = ThreadPlan("maps", 0, namespace)
    thread.close(thread.bpf(bpf_attr.Command.MAP_CREATE, attributes, returns_fd=True))
    return thread


def _replace_map(attributes: ctypes.Structure) -> ThreadPlan:
    """Plan: close the map of the previous round and create the next.

    The module is referenced nearly all the time.  So unloading races with the drop of the last
    reference and with the next first one, and few rounds wait for the module to be loaded again.
    """
    thread = ThreadPlan("maps", 0)
    current = thread.persistent_fd()
    thread.close(current, tolerate=errno.EBADF)
    thread.bpf(bpf_attr.Command.MAP_CREATE, attributes, into=current)
    return thread


def _unload_and_load(name: str) -> ThreadPlan:
    """Plan: unload the module unless it is in use, and load it again."""
    thread = ThreadPlan("unload", 1)
    thread.unload(name)
    thread.load(modules.module_path(name))
    return thread


@pytest.mark.clause("MM-7.1", "MM-7.5", "RT-1.1", "RT-3.1")
@pytest.mark.deadline(DEADLINE)
@pytest.mark.parametrize("name", [modules.FLOWMAP_MODULE, dummy_map_module.MODULE])
def test_map_create_free_vs_unload_fails_cleanly(flowmap_loaded: str, name: str) -> None:
    """Map creation racing unload succeeds or gives EINVAL; unload succeeds or gives EAGAIN."""
    require_suite_module(name)
    attributes = bpf.flowmap_create_attr()
    if name != flowmap_loaded:
        attributes = bpf_attr.MapCreateAttr(
            map_type=bpf.flowmap_type(), key_size=4, value_size=8, max_entries=4
        )
        modules.unload(flowmap_loaded)
        modules.load(name)
    with modules.autoload_disabled():
        threads = [_replace_map(attributes), _unload_and_load(name)]
        report = native_race.run(threads, 5 * ROUNDS, jitter=JITTER)
    report.require_outcomes({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    assert modules.loaded(name)
    wait_for("the module to be unloadable", lambda: modules.try_unload(name))


def _flow_add_del(conn: Connection) -> ThreadPlan:
    """Plan: send a packet each way, which adds a flow, and flush conntrack."""
    router = conn.router
    request = build_frame(router.client, router.lan, conn.tuple)
    reply = build_frame(router.server, router.wan, conn.tuple.reversed())
    thread = ThreadPlan("flows", 0)
    thread.send(router.client.ifindex, [request], router.client.namespace)
    thread.send(router.server.ifindex, [reply], router.server.namespace)
    thread.netlink(
        netlink.NETLINK_NETFILTER,
        netlink.encode_request([conntrack.flush_message()]),
        router.namespace,
    )
    return thread


def _lookups(fd: int, flow: Flow, times: int, cpu: int = 1) -> ThreadPlan:
    """Plan: look up both directions; a value must match its key's direction."""
    thread = ThreadPlan(f"lookup {cpu}", cpu, times=times)
    for direction, key in enumerate(flow.keys):
        value = thread.buffer(uapi.Value())
        links = {"key": thread.buffer(key), "value": value}
        attributes = bpf_attr.MapElemAttr(map_fd=fd)
        thread.bpf(bpf_attr.Command.MAP_LOOKUP_ELEM, attributes, links, tolerate=NO_FLOW, skip=1)
        thread.expect_buffer(value, uapi.Value.dir.offset, bytes([direction]))
    return thread


def _assert_mirroring_works(conn: Connection, fd: int) -> None:
    """Check that lookups and flush work after the race as before it."""
    for sock in (conn.client, conn.server):
        _drain(sock)
    flow = conn.wait_offloaded()
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    conntrack.flush(conn.router.namespace)
    wait_for("the flow to be a miss", lambda: bpf.lookup_or_none(fd, flow.original) is None)


def _drain(sock: socket.socket) -> None:
    """Discard the payloads of the crafted frames from a socket."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1 << 16)
    sock.settimeout(timeout)


@pytest.mark.clause("RT-1.1", "SN-6.4")
@pytest.mark.deadline(DEADLINE)
def test_flow_add_del_vs_lookup_hits_or_misses(
    private_flowmap: int, udp_connection: Connection
) -> None:
    """Lookups racing flow addition and deletion hit or miss, and see both."""
    flow, times = udp_connection.wait_offloaded(), 20
    threads = [_flow_add_del(udp_connection), _lookups(private_flowmap, flow, times)]
    report = native_race.run(threads, ROUNDS, inherited_fds=[private_flowmap])
    report.require_outcomes({"flows": {"ok"}, "lookup 1": {"ok"}})
    # Both hits and misses occurred.
    assert 0 < report.tolerated["lookup 1"] < 2 * times * ROUNDS, str(report)
    _assert_mirroring_works(udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "RT-2.1")
@pytest.mark.deadline(DEADLINE)
def test_lookup_vs_lookup_always_hits(private_flowmap: int, udp_connection: Connection) -> None:
    """Concurrent lookups of one flow always hit, and return its direction.

    Each lookup refreshes fields of the value that both lookups return.
    """
    # A syscall lookup does not refresh a flow's timeout.
    timeout = {"netfilter/nf_flowtable_udp_timeout": 3600}
    netns.set_sysctls(udp_connection.router.namespace, timeout)
    flow = udp_connection.wait_offloaded()
    # Enough lookups for an overlap even if another process preempts one of the threads.
    threads = [_lookups(private_flowmap, flow, 200, cpu) for cpu in (0, 1)]
    report = native_race.run(threads, ROUNDS, inherited_fds=[private_flowmap])
    report.require_outcomes({thread.name: {"ok"} for thread in threads})
    assert not any(report.tolerated.values()), str(report)
    _assert_mirroring_works(udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "SN-9.3")
@pytest.mark.deadline(DEADLINE)
def test_flow_add_del_vs_map_create_free_keeps_mirroring(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """Flow addition and deletion racing map creation and free keep being mirrored."""
    udp_connection.wait_offloaded()
    maps = _map_create_free(bpf.flowmap_create_attr(), private_router.namespace)
    maps.cpu = 1
    report = native_race.run([_flow_add_del(udp_connection), maps], ROUNDS)
    report.require_outcomes({"flows": {"ok"}, "maps": {"ok"}})
    _assert_mirroring_works(udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1", "SN-9.3")
@pytest.mark.deadline(DEADLINE)
def test_flow_add_del_vs_snoop_table_create_delete_keeps_mirroring(
    private_router: Router, private_flowmap: int, udp_connection: Connection
) -> None:
    """Flow addition and deletion racing snoop table creation and deletion keep being mirrored."""
    udp_connection.wait_offloaded()
    tables = ThreadPlan("tables", 1)
    table = flowtable.new_table(flowtable.INET, "spy")
    spy = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=flowtable.SNOOP)
    for messages in ([table, spy], [flowtable.delete_table(flowtable.INET, "spy")]):
        request = flowtable.encode_batch(messages)
        tables.netlink(netlink.NETLINK_NETFILTER, request, private_router.namespace)
    report = native_race.run([_flow_add_del(udp_connection), tables], ROUNDS)
    # ENOSPC: a work item has not yet removed 64 deleted tables; ENOENT: so there is none to delete.
    report.require_outcomes({"flows": {"ok"}, "tables": {"ok", "ENOSPC", "ENOENT"}})
    assert report.outcomes("tables")["ok"] > 0, str(report)
    _assert_mirroring_works(udp_connection, private_flowmap)


@pytest.mark.clause("RT-1.1")
@pytest.mark.deadline(DEADLINE)
def test_flow_add_del_vs_get_next_key_keeps_mirroring(
    private_flowmap: int, udp_connection: Connection
) -> None:
    """Flow addition and deletion racing BPF_MAP_GET_NEXT_KEY keep being mirrored."""
    udp_connection.wait_offloaded()
    walk = ThreadPlan("walk", 1, times=20)
    # The first key, then the key after it.
    first, second = walk.buffer(uapi.Key()), walk.buffer(uapi.Key())
    attributes = bpf_attr.MapElemAttr(map_fd=private_flowmap)
    step = bpf_attr.Command.MAP_GET_NEXT_KEY
    walk.bpf(step, attributes, {"value": first}, tolerate=NO_FLOW, skip=1)
    walk.bpf(step, attributes, {"key": first, "value": second}, tolerate=NO_FLOW)
    report = native_race.run(
        [_flow_add_del(udp_connection), walk], ROUNDS, inherited_fds=[private_flowmap]
    )
    report.require_outcomes({"flows": {"ok"}, "walk": {"ok"}})
    _assert_mirroring_works(udp_connection, private_flowmap)
