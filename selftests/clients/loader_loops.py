# SPDX-License-Identifier: GPL-2.0-only
"""The loops by which common loaders read a map, rewritten from their behaviour.

Each is a generator of keys and values, so that a test can change the map between two steps.  What
decides is kept: the key that the loop starts with, which buffers it uses again, when it stops, and
the size of a batch's cursor.  The docstrings name library, function and version.
"""

import ctypes
import errno
from collections.abc import Callable, Iterator

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.guarded_buffer import GuardedBuffer
from selftests.clients.client_parts import next_raw_key

Pairs = Iterator[tuple[bytes, bytes]]
Loop = Callable[[int], Pairs]
Loops = dict[str, Loop]

_CHUNK = 3
"""Entries of a batch, where the caller of a library chooses the number."""


class IterationAborted(AssertionError):
    """A loop gave up, because it saw more keys than ``max_entries``."""


def _lookup(fd: int, key: bytes) -> bytes | None:
    try:
        return bpf.lookup_raw(fd, key, bpf.map_info(fd).value_size)
    except FileNotFoundError:
        return None


def cilium_ebpf(fd: int) -> Pairs:
    """Yield what ``MapIterator.Next`` of Go's cilium/ebpf v0.22.0 (map.go) returns.

    The first key comes from a NULL pointer.  Then one buffer is both the key and the next key.
    The loop gives up after max_entries + 1 keys.
    """
    info = bpf.map_info(fd)
    cursor = ctypes.create_string_buffer(info.key_size)
    first = True
    for _ in range(info.max_entries + 1):
        attr = bpf_attr.MapElemAttr(
            map_fd=fd, key=0 if first else bpf.user_pointer(cursor), value=bpf.user_pointer(cursor)
        )
        first = False
        try:
            bpf.bpf(bpf_attr.Command.MAP_GET_NEXT_KEY, attr)
        except FileNotFoundError:
            return
        if (value := _lookup(fd, cursor.raw)) is not None:
            yield cursor.raw, value
    raise IterationAborted(f"more than {info.max_entries} keys")


def cilium_ebpf_old(fd: int) -> Pairs:
    """Yield what ``MapIterator.Next`` of Go's cilium/ebpf v0.1.0 (map.go) returns.

    It copies each key.  Only keys without a value count towards its limit, max_entries.
    """
    without_value, key = 0, next_raw_key(fd, None)
    while key is not None:
        if (value := _lookup(fd, key)) is not None:
            yield key, value
        elif (without_value := without_value + 1) >= bpf.map_info(fd).max_entries:
            raise IterationAborted("too many keys without a value")
        key = next_raw_key(fd, key)


def _absent_key(fd: int, fills: bytes) -> bytes:
    """Return the first key of one repeated octet that a lookup does not find (ENOENT).

    The value's address is one that cannot be written to, so a hit fails with another errno.
    """
    unwritable = GuardedBuffer(0)
    for fill in fills:
        key = ctypes.create_string_buffer(bytes([fill]) * uapi.KEY_SIZE, uapi.KEY_SIZE)
        attr = bpf_attr.MapElemAttr(map_fd=fd, key=bpf.user_pointer(key), value=unwritable.address)
        try:
            bpf.bpf(bpf_attr.Command.MAP_LOOKUP_ELEM, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return key.raw
    raise AssertionError("no key of one repeated octet is absent")


def made_up_first_key(fd: int) -> Pairs:
    """Yield what loaders return that cannot pass NULL: they start at a key that they make up.

    ``guessNonExistentKey`` of cilium/ebpf v0.8.0 to v0.22.0 (map.go) and ``bpf_get_first_key`` of
    bcc 0.37.0 (src/cc/libbpf.c) look up keys of the octets 0, 0xff and 0x55 until one is absent.
    """
    key = next_raw_key(fd, _absent_key(fd, b"\x00\xff\x55"))
    while key is not None:
        if (value := _lookup(fd, key)) is not None:
            yield key, value
        key = next_raw_key(fd, key)


def aya(fd: int) -> Pairs:
    """Yield what ``MapIter`` of Rust's aya 0.14.0 (aya/src/maps/mod.rs) returns.

    The first key comes from a NULL pointer; keys without a value are skipped.
    """
    key = next_raw_key(fd, None)
    while key is not None:
        if (value := _lookup(fd, key)) is not None:
            yield key, value
        key = next_raw_key(fd, key)


def libbpf_rs(fd: int) -> Pairs:
    """Yield what ``MapKeyIter`` of Rust's libbpf-rs 0.27.0 (libbpf-rs/src/map.rs) returns.

    The first key comes from a NULL pointer; any error ends the loop.  The caller looks each key up.
    """
    key: bytes | None = None
    while True:
        try:
            key = next_raw_key(fd, key)
        except OSError:
            return
        if key is None:
            return
        if (value := _lookup(fd, key)) is not None:
            yield key, value


def bcc(fd: int) -> Pairs:
    """Yield what ``TableBase.items`` of bcc 0.37.0 (src/python/bcc/table.py) returns.

    ``len()`` of a table walks it a first time.  A key whose value has gone is not skipped: the
    caller gets a KeyError, so this loop ends there.
    """
    keys = 0
    key = next_raw_key(fd, None)
    while key is not None:
        keys += 1
        key = next_raw_key(fd, key)
    key = next_raw_key(fd, None)
    while key is not None:
        value = _lookup(fd, key)
        if value is None:
            return
        yield key, value
        key = next_raw_key(fd, key)


def libbpf_tools(fd: int) -> Pairs:
    """Yield what ``dump_hash_iter`` of bcc's libbpf-tools (map_helpers.c, 0.37.0) returns.

    It starts at a key that the caller says is absent, often zeroes, reads at most max_entries keys
    first, and then the values.
    """
    info = bpf.map_info(fd)
    keys: list[bytes] = []
    key: bytes | None = bytes(info.key_size)
    while len(keys) < info.max_entries and (key := next_raw_key(fd, key)) is not None:
        keys.append(key)
    for each in keys:
        if (value := _lookup(fd, each)) is not None:
            yield each, value


def _batch(
    fd: int, count: int, position: GuardedBuffer | None, out: GuardedBuffer
) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Read a batch; return its keys and values, and whether the map has no more."""
    info = bpf.map_info(fd)
    keys = ctypes.create_string_buffer(count * info.key_size)
    values = ctypes.create_string_buffer(count * info.value_size)
    attr = bpf_attr.MapBatchAttr(
        in_batch=position.address if position else 0,
        out_batch=out.address,
        keys=bpf.user_pointer(keys),
        values=bpf.user_pointer(values),
        count=count,
        map_fd=fd,
    )
    ended = False
    try:
        bpf.bpf(bpf_attr.Command.MAP_LOOKUP_BATCH, attr)
    except FileNotFoundError:
        ended = True
    return [
        (
            keys.raw[number * info.key_size : (number + 1) * info.key_size],
            values.raw[number * info.value_size : (number + 1) * info.value_size],
        )
        for number in range(attr.count)
    ], ended


def cilium_ebpf_batch(fd: int) -> Pairs:
    """Yield what ``Map.BatchLookup`` of Go's cilium/ebpf v0.22.0 (map.go) returns, in chunks.

    The cursor has the size of a key, and one buffer is both the position and the next one.
    ENOENT is the end, also with entries.
    """
    cursor = GuardedBuffer(max(bpf.map_info(fd).key_size, 4), bytes(uapi.KEY_SIZE))
    position, ended = None, False
    while not ended:
        pairs, ended = _batch(fd, _CHUNK, position, cursor)
        position = cursor
        yield from pairs


def libbpf_rs_batch(fd: int) -> Pairs:
    """Yield what ``BatchedMapIter`` of Rust's libbpf-rs 0.27.0 (libbpf-rs/src/map.rs) returns.

    The cursor has the size of a key and is copied.  A batch that is shorter than asked for is the
    last one, whatever the errno.
    """
    position: GuardedBuffer | None = None
    while True:
        out = GuardedBuffer(uapi.KEY_SIZE)
        pairs, _ = _batch(fd, _CHUNK, position, out)
        position = GuardedBuffer(uapi.KEY_SIZE, out.read())
        yield from pairs
        if len(pairs) < _CHUNK:
            return


def whole_map_batch(fd: int) -> Pairs:
    """Yield what bcc 0.37.0 (``items_lookup_batch``, src/python/bcc/table.py) returns.

    The buffers have room for max_entries; each call continues behind what the last one returned,
    and the loop stops when the buffers are full.  bcc's own cursor of 4 octets is too short for
    this map: see test_batch_buffers.py.  Here it has the size of a key.
    """
    room, total = bpf.map_info(fd).max_entries, 0
    cursor = GuardedBuffer(uapi.KEY_SIZE)
    ended = False
    while not ended and total < room:
        pairs, ended = _batch(fd, room - total, cursor if total else None, cursor)
        total += len(pairs)
        yield from pairs


def zeroed_cursor_batch(fd: int) -> Pairs:
    """Yield what ``dump_hash_batch`` of bcc's libbpf-tools (map_helpers.c, 0.37.0) returns.

    The first call has a position, too, and it is zero.  Its cursor of 8 octets is too short for
    this map: see test_batch_buffers.py.  Here it has the size of a key.
    """
    room, total = bpf.map_info(fd).max_entries, 0
    position = GuardedBuffer(uapi.KEY_SIZE, bytes(uapi.KEY_SIZE))
    out = GuardedBuffer(uapi.KEY_SIZE)
    ended = False
    while not ended and total < room:
        pairs, ended = _batch(fd, min(_CHUNK, room - total), position, out)
        position.write(out.read())
        total += len(pairs)
        yield from pairs


KEY_LOOPS: Loops = {
    loop.__name__: loop
    for loop in (cilium_ebpf, cilium_ebpf_old, made_up_first_key, aya, libbpf_rs, bcc, libbpf_tools)
}
BATCH_LOOPS: Loops = {
    loop.__name__: loop
    for loop in (cilium_ebpf_batch, libbpf_rs_batch, whole_map_batch, zeroed_cursor_batch)
}
