# SPDX-License-Identifier: GPL-2.0-only
"""Each operation that a flow map refuses has one errno, and changes nothing."""

import errno
import fcntl
import mmap
import os
import select
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

Operation = Callable[[int, uapi.Key], object]

# The kernel's internal ENOTSUPP: bpf(2) returns it for operations that a map type lacks.
_ENOTSUPP = 524
_FIONREAD = 0x541B


def _map_memory(size: int, flags: int, protection: int) -> Operation:
    def operation(fd: int, _: uapi.Key) -> object:
        return mmap.mmap(fd, size, flags, protection)

    return operation


def _batch(command: bpf_attr.Command, count: int) -> Operation:
    return lambda fd, _: bpf.lookup_batch(fd, count, None, command)


def _update(flags: int) -> Operation:
    return lambda fd, key: bpf.update(fd, key, uapi.Value(), flags)


REFUSED: dict[str, tuple[int, Operation]] = {
    "update-any": (errno.EOPNOTSUPP, _update(0)),
    "update-noexist": (errno.EOPNOTSUPP, _update(1)),
    "update-exist": (errno.EOPNOTSUPP, _update(2)),
    "delete": (errno.EOPNOTSUPP, bpf.delete),
    "lookup-and-delete": (_ENOTSUPP, bpf.lookup_and_delete),
    "freeze": (_ENOTSUPP, lambda fd, _: bpf.freeze(fd)),
    "read": (errno.EINVAL, lambda fd, _: os.read(fd, 8)),
    "write": (errno.EINVAL, lambda fd, _: os.write(fd, bytes(8))),
    "ioctl": (errno.ENOTTY, lambda fd, _: fcntl.ioctl(fd, _FIONREAD, bytes(4))),
}
for _name, _command in (
    ("update-batch", bpf_attr.Command.MAP_UPDATE_BATCH),
    ("delete-batch", bpf_attr.Command.MAP_DELETE_BATCH),
    ("lookup-and-delete-batch", bpf_attr.Command.MAP_LOOKUP_AND_DELETE_BATCH),
):
    for _count in (1, 16):
        REFUSED[f"{_name}-{_count}"] = (_ENOTSUPP, _batch(_command, _count))
for _size in (mmap.PAGESIZE, 16 * mmap.PAGESIZE):
    for _flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
        for _protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            REFUSED[f"mmap-{_size}-{_flags}-{_protection}"] = (
                _ENOTSUPP,
                _map_memory(_size, _flags, _protection),
            )


def _errno(operation: Operation, fd: int, key: uapi.Key) -> int:
    try:
        operation(fd, key)
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.clause("FM-7.1", "FM-7.2", "FM-7.3", "FM-7.4", "FM-7.5")
@pytest.mark.parametrize("extra", [0, uapi.PASSIVE], ids=["active", "passive"])
def test_refused_operation_has_one_errno_and_changes_nothing(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, extra: int
) -> None:
    """Each refused operation has its own errno for every key, and leaves every flow as it is.

    The keys are those of flows, keys that no flow has, and keys that no flow can have.  Afterwards
    the map is as usable as before: flows leave it and enter it.
    """
    fd = make_flowmap(router.namespace, map_extra=extra)
    flows = [
        open_connection(protocol, version, server_port=7000 + version).wait_offloaded()
        for protocol, version in ((IPPROTO_TCP, 4), (IPPROTO_UDP, 6))
    ]
    absent = uapi.Key.from_buffer_copy(flows[0].original)
    absent.ports.source ^= 1
    impossible = uapi.Key.from_buffer_copy(flows[1].original)
    impossible.reserved[0] = 1
    keys = [*flows[0].keys, *flows[1].keys, absent, impossible, uapi.Key()]

    def state() -> dict[bytes, bytes]:
        pairs, _, _ = bpf.lookup_batch(fd, 16)
        # Without the first field, the expiry, which packets may move.
        return {bytes(key): bytes(value)[8:] for key, value in pairs}

    before = state()
    assert len(before) == 4
    for name, (expected, operation) in REFUSED.items():
        errnos = {_errno(operation, fd, key) for key in keys}
        assert errnos == {expected}, name
        assert state() == before, name
        assert (bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)) == (2, 0), name

    conntrack.delete(flows[0].entry.original, router.namespace)
    wait_for("the deleted flow to leave", lambda: bpf.flowmap_entry_count(fd) == 1)
    added = open_connection(IPPROTO_UDP, 4, server_port=7010).wait_offloaded()
    assert [bpf.lookup(fd, key).dir for key in added.keys] == [0, 1]


@pytest.mark.clause("FM-7.4")
@pytest.mark.parametrize("with_flow", [False, True], ids=["empty", "with-flow"])
def test_poll_of_map_returns_error_at_once(
    flowmap: int, open_connection: OpenConnection, cleanup: ExitStack, with_flow: bool
) -> None:
    """poll() and epoll on a flow map report EPOLLERR and nothing else, and do not wait."""
    if with_flow:
        open_connection(IPPROTO_UDP, 4).wait_offloaded()
    for events in (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLPRI):
        poller = select.poll()
        poller.register(flowmap, events)
        assert poller.poll(0) == [(flowmap, select.POLLERR)], events
    epoll = select.epoll()
    cleanup.callback(epoll.close)
    epoll.register(flowmap, select.EPOLLIN | select.EPOLLOUT)
    assert epoll.poll(0) == [(flowmap, select.EPOLLERR)]
