# SPDX-License-Identifier: GPL-2.0-only
"""System calls with buffers that end at the end of a page: the kernel uses exactly their size."""

import ctypes
import errno

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpf_attr import Command, MapBatchAttr, MapElemAttr
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.guarded_buffer import FILL, GuardedBuffer
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from selftests.clients.client_parts import flow_keys, offload_flows, read_pairs

_VALUE_SIZES = (uapi.VALUE_SIZE_VER0, uapi.VALUE_SIZE_VER0 + 1, uapi.VALUE_SIZE)
_FLOWS = 4
_KEYS = uapi.keys_for_flows(_FLOWS)


def _batch(
    fd: int,
    count: int,
    keys: GuardedBuffer,
    values: GuardedBuffer,
    out: GuardedBuffer,
    position: GuardedBuffer | None = None,
) -> tuple[int, int]:
    """Call BPF_MAP_LOOKUP_BATCH; return its errno, or 0, and the count that it wrote."""
    attr = MapBatchAttr(
        in_batch=position.address if position else 0,
        out_batch=out.address,
        keys=keys.address,
        values=values.address,
        count=count,
        map_fd=fd,
    )
    try:
        bpf.bpf(Command.MAP_LOOKUP_BATCH, attr)
    except OSError as error:
        return error.errno or -1, attr.count
    return 0, attr.count


def _split(data: bytes, size: int, count: int) -> list[bytes]:
    return [data[number * size : (number + 1) * size] for number in range(count)]


def _read_by_batches(
    fd: int, size: int, value_size: int, same_buffer: bool
) -> list[tuple[bytes, bytes]]:
    """Read a map by batches with exact buffers; the cursor's is the position's, or another one.

    Raises:
        AssertionError: the batches do not end with ENOENT.
    """
    keys, values = GuardedBuffer(size * uapi.KEY_SIZE), GuardedBuffer(size * value_size)
    position: GuardedBuffer | None = None
    seen: list[tuple[bytes, bytes]] = []
    error = 0
    while not error:
        out = position if same_buffer and position else GuardedBuffer(uapi.KEY_SIZE)
        error, count = _batch(fd, size, keys, values, out, position)
        position = out
        seen += zip(
            _split(keys.read(), uapi.KEY_SIZE, count),
            _split(values.read(), value_size, count),
            strict=True,
        )
        assert len(seen) <= _KEYS, "the batches do not end"
    assert error == errno.ENOENT
    return seen


@pytest.mark.clause("FM-6.3", "FM-13.3")
def test_batch_with_exact_buffers_reads_every_entry(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Batches of every size need no octet more than keys, values and cursor have.

    The sizes divide the number of keys, or do not, or are larger than it.  The cursor that one
    call wrote is the next call's position, in the same buffer or in another one.
    """
    flows = offload_flows(open_connection, _FLOWS)
    for value_size in _VALUE_SIZES:
        fd = make_flowmap(router.namespace, value_size=value_size)
        expected = read_pairs(fd)
        assert {key for key, _ in expected} == flow_keys(flows)
        for size in (1, 2, 3, _KEYS - 1, _KEYS, _KEYS + 1, 64):
            for same_buffer in (False, True):
                what = f"batches of {size}, values of {value_size}, one cursor: {same_buffer}"
                assert _read_by_batches(fd, size, value_size, same_buffer) == expected, what


@pytest.mark.clause("FM-13.3")
def test_batch_writes_nothing_behind_last_entry(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Buffers that are larger than ``count``, or than the map, keep their octets behind the end."""
    offload_flows(open_connection, _FLOWS)
    room = _KEYS + 4
    for value_size in _VALUE_SIZES:
        fd = make_flowmap(router.namespace, value_size=value_size)
        pairs = read_pairs(fd)
        for asked, found, error in (
            (1, 1, 0),
            (_KEYS - 3, _KEYS - 3, 0),
            (room, _KEYS, errno.ENOENT),
        ):
            what = f"{asked} entries, values of {value_size}"
            keys, values = GuardedBuffer(room * uapi.KEY_SIZE), GuardedBuffer(room * value_size)
            out = GuardedBuffer(uapi.KEY_SIZE)
            assert _batch(fd, asked, keys, values, out) == (error, found), what
            filled = b"".join(key for key, _ in pairs[:found])
            assert keys.read() == filled.ljust(keys.size, bytes([FILL])), what
            filled = b"".join(value for _, value in pairs[:found])
            assert values.read() == filled.ljust(values.size, bytes([FILL])), what


@pytest.mark.clause("FM-6.3")
def test_batch_of_count_zero_touches_no_buffer(
    flowmap: int, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """A batch with ``count`` 0 succeeds and reads and writes nothing, in an empty map too."""
    empty = make_flowmap()
    offload_flows(open_connection, 1)
    for fd in (flowmap, empty):
        keys, values = GuardedBuffer(uapi.KEY_SIZE), GuardedBuffer(uapi.VALUE_SIZE)
        out, nothing = GuardedBuffer(uapi.KEY_SIZE), GuardedBuffer(0)
        assert _batch(fd, 0, keys, values, out) == (0, 0)
        assert _batch(fd, 0, nothing, nothing, nothing, nothing) == (0, 0)
        for buffer in (keys, values, out):
            assert buffer.read() == bytes([FILL]) * buffer.size
    assert bpf.flowmap_entry_count(flowmap) == 1


@pytest.mark.clause("FM-6.3")
def test_batch_with_short_buffer_is_efault_and_changes_nothing(
    flowmap: int, open_connection: OpenConnection
) -> None:
    """A buffer that is too short gives EFAULT, reports no entry, and the next batch is complete.

    Among the cursors are those of bcc 0.37.0: 4 octets (``items_lookup_batch`` in
    src/python/bcc/table.py) and 8 (``dump_hash_batch`` in libbpf-tools/map_helpers.c), which are
    right only for hash tables: linux/bpf.h asks for room for a key.
    """
    offload_flows(open_connection, _FLOWS)
    expected = read_pairs(flowmap)
    whole = (_KEYS * uapi.KEY_SIZE, _KEYS * uapi.VALUE_SIZE, uapi.KEY_SIZE)
    for place, name in enumerate(("keys", "values", "cursor")):
        short = {whole[place] - 1, whole[place] // 2 + 1, 8, 4, 0}
        for size in sorted(short):
            sizes = list(whole)
            sizes[place] = size
            keys, values, out = map(GuardedBuffer, sizes)
            error, count = _batch(flowmap, _KEYS, keys, values, out)
            assert error == errno.EFAULT, f"{name} of {size} octets"
            if name != "cursor":
                assert count == 0, f"{name} of {size} octets"
    for size in (uapi.KEY_SIZE - 1, 8, 4, 0):
        keys, values, out = map(GuardedBuffer, whole)
        position = GuardedBuffer(size, bytes(size))
        assert _batch(flowmap, _KEYS, keys, values, out, position) == (errno.EFAULT, 0), size
    keys, values, out = map(GuardedBuffer, whole)
    assert _batch(flowmap, _KEYS, keys, values, out) == (0, _KEYS)
    assert _split(keys.read(), uapi.KEY_SIZE, _KEYS) == [key for key, _ in expected]
    assert _split(values.read(), uapi.VALUE_SIZE, _KEYS) == [value for _, value in expected]


def _element(command: Command, fd: int, key: GuardedBuffer | None, value: GuardedBuffer) -> None:
    attr = MapElemAttr(map_fd=fd, key=key.address if key else 0, value=value.address)
    bpf.bpf(command, attr, ctypes.sizeof(attr))


@pytest.mark.clause("FM-6.1", "FM-13.3")
def test_lookup_and_next_key_with_exact_buffers(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """Single lookups and steps of a walk need no octet more than key and value have.

    One octet less is EFAULT.  A step may write the next key over the given one.
    """
    offload_flows(open_connection, 2)
    for value_size in _VALUE_SIZES:
        fd = make_flowmap(router.namespace, value_size=value_size)
        expected = read_pairs(fd)
        step = GuardedBuffer(uapi.KEY_SIZE)
        short_key = GuardedBuffer(uapi.KEY_SIZE - 1)
        _element(Command.MAP_GET_NEXT_KEY, fd, None, step)
        for number, (key, value) in enumerate(expected):
            assert step.read() == key
            found = GuardedBuffer(value_size)
            _element(Command.MAP_LOOKUP_ELEM, fd, step, found)
            assert found.read() == value
            with expect_errno(errno.EFAULT):
                _element(Command.MAP_LOOKUP_ELEM, fd, step, GuardedBuffer(value_size - 1))
            with expect_errno(errno.EFAULT):
                _element(Command.MAP_LOOKUP_ELEM, fd, short_key, found)
            with expect_errno(errno.EFAULT):
                _element(Command.MAP_GET_NEXT_KEY, fd, short_key, step)
            if number + 1 < len(expected):
                with expect_errno(errno.EFAULT):
                    _element(Command.MAP_GET_NEXT_KEY, fd, step, short_key)
                _element(Command.MAP_GET_NEXT_KEY, fd, step, step)
        with expect_errno(errno.ENOENT):
            _element(Command.MAP_GET_NEXT_KEY, fd, step, step)
