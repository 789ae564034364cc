# SPDX-License-Identifier: GPL-2.0-only
"""Helpers of tests that force one interleaving: add a flow, delete it, look it up.

The tests hold a task at a kernel function inside the race window
(fixtures/guest/kernel/syncpoints.py) and run the competing operation meanwhile.  The order does not
depend on the scheduler; a failure names the function at which the task was held.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fixtures.flowmap.uapi import Key
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU
from fixtures.guest.net import conntrack, netlink, rtnetlink
from fixtures.guest.traffic.connections import Connection, Flow, key_from_tuple

GC_DUMMY_IFINDEX = 77


def assert_waits(tid: int, function: str, condition: Callable[[], object]) -> None:
    """Assert that a task waits in a kernel function, and that a condition is false then.

    Args:
        tid: the task.  It may still be leaving a syncpoint.
        function: the function, or the beginning of its name, that is on the task's stack.
        condition: what the task does behind the function.

    Raises:
        AssertionError: the condition became true, or the task never waited there.
    """

    def waits_or_went_on() -> bool:
        return bool(condition()) or _waits_in(tid, function)

    wait_for(f"task {tid} to wait in {function}", waits_or_went_on)
    assert not condition(), f"task {tid} did not wait in {function}"


def _waits_in(tid: int, function: str) -> bool:
    task = Path(f"/proc/{tid}")
    try:
        state = task_state(tid)
        stack = (task / "stack").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state == "D" and f" {function}" in stack and "fm_syncpoint" not in stack


def task_state(tid: int) -> str:
    """Return the state of a task: D while it waits uninterruptibly, Z once it has exited."""
    return Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()[0]


def lookup_directions(fd: int, flow_keys: Sequence[Key]) -> list[int | None]:
    """Return the direction that each key's lookup finds, or None for a miss."""
    values = [bpf.lookup_or_none(fd, key) for key in flow_keys]
    return [None if value is None else int(value.dir) for value in values]


def expected_keys(conn: Connection) -> tuple[Key, Key]:
    """Return the keys that a connection's flow will have without NAT."""
    router = conn.router
    original = key_from_tuple(conn.tuple, router.lan.ifindex)
    return original, key_from_tuple(conn.tuple.reversed(), router.wan.ifindex)


def offload_and_flush(conn: Connection, fd: int) -> Flow:
    """Offload a connection's flow, flush it, and return it for its keys."""
    flow = conn.wait_offloaded()
    conntrack.flush(conn.router.namespace)
    wait_for("the flow to be removed", lambda: bpf.flowmap_entry_count(fd) == 0)
    return flow


def gated_sender(conn: Connection, *inherited_fds: int) -> child_process.GatedChild:
    """Return a gated child that sends a packet each way; the second packet adds the flow.

    Args:
        conn: the connection.
        inherited_fds: the child closes its copies, so that the test's close is the last one.
    """

    def send() -> None:
        for fd in inherited_fds:
            os.close(fd)
        conn.exchange()

    return child_process.GatedChild(send, HELD_CPU)


def run_gc_on_this_cpu(namespace: str) -> None:
    """Move flowtable garbage collection to the current CPU.

    Taking a device down flushes the GC work (nf_flow_table_cleanup()) in any netns, and the work
    re-arms itself on the CPU where it ran.  The test keeps the other CPU busy.
    """
    begin = [rtnetlink.add_dummy("fm-gc", GC_DUMMY_IFINDEX), rtnetlink.set_up(GC_DUMMY_IFINDEX)]
    netlink.transact(netlink.NETLINK_ROUTE, begin, namespace)
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete_link(GC_DUMMY_IFINDEX)], namespace)
