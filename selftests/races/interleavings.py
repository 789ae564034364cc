# SPDX-License-Identifier: GPL-2.0-only
"""What tests that force one interleaving share: who adds a flow, who deletes it, what is left.

They hold a task at a function inside the window (fixtures/guest/kernel/syncpoints.py) and do what must
not hurt there.  Nothing is left to luck, and each test says where it stopped.
"""

import os
from collections.abc import Callable, Sequence

import pytest

from fixtures.flowmap.uapi import Key
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import DeadlinePassed, wait_for
from fixtures.guest.kernel.syncpoints import FAR
from fixtures.guest.net import conntrack, netlink, rtnetlink
from fixtures.guest.traffic.connections import Connection, Flow, key_of

DUMMY = 77
PATIENCE = 0.3
"""Seconds, scaled, in which what must not happen would have."""


def in_vain(what: str, condition: Callable[[], object]) -> None:
    """Wait for what somebody who is held keeps from happening.

    Raises:
        pytest.fail.Exception: it has happened.
    """
    with pytest.raises(DeadlinePassed):
        wait_for(what, condition, PATIENCE)


def found(fd: int, keys: Sequence[Key]) -> list[int | None]:
    """The direction that each of a flow's keys finds, or None."""
    values = [bpf.found(fd, key) for key in keys]
    return [None if value is None else int(value.dir) for value in values]


def keys(talk: Connection) -> tuple[Key, Key]:
    """The keys that a connection's flow will have, as nothing translates it."""
    router = talk.router
    there = key_of(talk.tuple, router.inside.index)
    return there, key_of(talk.tuple.reversed(), router.outside.index)


def known(talk: Connection, fd: int) -> Flow:
    """A connection's keys; it has been offloaded, and is forgotten again."""
    flow = talk.offloaded()
    conntrack.flush(talk.router.namespace)
    wait_for("the flow to be gone", lambda: bpf.entries(fd) == 0)
    return flow


def adder(talk: Connection, *not_its_own: int) -> child_process.Waiting:
    """A child that sends a packet each way; the second one has the flow added.

    Args:
        not_its_own: descriptors that the test will close, which is to be their end.
    """

    def send() -> None:
        for fd in not_its_own:
            os.close(fd)
        talk.exchange()

    return child_process.Waiting(send, FAR)


def collect_garbage_here(namespace: str) -> None:
    """Let the flow tables' garbage collection run on this CPU from now on.

    A device that goes down flushes it (nf_flow_table_cleanup()), in whichever namespace, and
    it asks for its next run where it ran; the other CPU is to be kept busy.
    """
    begin = [rtnetlink.dummy("fm-gc", DUMMY), rtnetlink.up(DUMMY)]
    netlink.transact(netlink.NETLINK_ROUTE, begin, namespace)
    netlink.transact(netlink.NETLINK_ROUTE, [rtnetlink.delete(DUMMY)], namespace)
