# SPDX-License-Identifier: GPL-2.0-only
"""What the map commands of bpf(2) answer on a flow map: docs/series.md, "Errors".

The order is the kernel's for any map: fields of other commands, the descriptor, what it may be
used for, flags, memory, and only then the map's own answer.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fixtures.guest.bpf.bpf_attr import Command

ENOTSUPP = 524
"""The kernel's own, which BPF hands out where a map type lacks an operation."""

F_LOCK, F_CPU, F_ALL_CPUS = 4, 8, 16

FLAGS = (0, 1, 2, 3, F_LOCK, F_CPU, F_ALL_CPUS, 1 << 5, 1 << 31, 1 << 32, F_CPU | 1 << 32, 1 << 63)
COUNTS = (0, 1, 2, 3, 64)


class _Name(StrEnum):
    """Shown as it is written, so that a failing example is code."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Fd(_Name):
    """What the command's descriptor is."""

    MAP = "map"
    READER = "map, to read only"
    WRITER = "map, to write only"
    FILE = "something else"
    NOTHING = "no descriptor"


class Memory(_Name):
    """What an address is."""

    NULL = "NULL"
    UNMAPPED = "unmapped"
    ROOM = "room"


class Key(_Name):
    """What the address of a key is; a flow of which both directions are in the map is there."""

    NULL = "NULL"
    UNMAPPED = "unmapped"
    ORIGINAL = "original"
    REPLY = "reply"
    UNKNOWN = "unknown"
    RESERVED = "reserved byte set"

    @property
    def readable(self) -> bool:
        """Whether there is a key to be read."""
        return self not in (Key.NULL, Key.UNMAPPED)


ELEMENT = (
    Command.MAP_LOOKUP_ELEM,
    Command.MAP_UPDATE_ELEM,
    Command.MAP_DELETE_ELEM,
    Command.MAP_GET_NEXT_KEY,
    Command.MAP_LOOKUP_AND_DELETE_ELEM,
    Command.MAP_FREEZE,
)
BATCH = (
    Command.MAP_LOOKUP_BATCH,
    Command.MAP_LOOKUP_AND_DELETE_BATCH,
    Command.MAP_UPDATE_BATCH,
    Command.MAP_DELETE_BATCH,
)

FIELDS = {
    Command.MAP_LOOKUP_ELEM: 3,
    Command.MAP_UPDATE_ELEM: 3,
    Command.MAP_DELETE_ELEM: 1,
    Command.MAP_GET_NEXT_KEY: 2,
    Command.MAP_LOOKUP_AND_DELETE_ELEM: 3,
    Command.MAP_FREEZE: 0,
}
"""Which of key, value and flags a command has; what is behind its last must be 0."""

_READS = {
    Command.MAP_LOOKUP_ELEM,
    Command.MAP_GET_NEXT_KEY,
    Command.MAP_LOOKUP_AND_DELETE_ELEM,
    Command.MAP_LOOKUP_BATCH,
    Command.MAP_LOOKUP_AND_DELETE_BATCH,
}
_WRITES = {
    Command.MAP_UPDATE_ELEM,
    Command.MAP_DELETE_ELEM,
    Command.MAP_LOOKUP_AND_DELETE_ELEM,
    Command.MAP_LOOKUP_AND_DELETE_BATCH,
    Command.MAP_UPDATE_BATCH,
    Command.MAP_DELETE_BATCH,
}


@dataclass(frozen=True)
class OnElement:
    """A command on one element; ``value`` is the next key's address where that is asked for."""

    command: Command
    fd: Fd = Fd.MAP
    key: Key = Key.ORIGINAL
    value: Memory = Memory.ROOM
    flags: int = 0
    stray: bool = False
    """Whether there is a byte that is not 0 behind all of these."""


@dataclass(frozen=True)
class OnBatch:
    """A batch command."""

    command: Command
    fd: Fd = Fd.MAP
    start: Key = Key.NULL
    keys: Memory = Memory.ROOM
    values: Memory = Memory.ROOM
    end: Memory = Memory.ROOM
    count: int = 64
    flags: int = 0
    """Those of the elements."""
    batch_flags: int = 0
    """Those of the batch, which no map without batch operations of its own looks at."""
    stray: bool = False


Request = OnElement | OnBatch


def _access(command: Command, fd: Fd) -> int:
    """The errno of using a descriptor for a command, or 0."""
    if fd is Fd.NOTHING:
        return errno.EBADF
    if fd is Fd.FILE:
        return errno.EINVAL
    if command is Command.MAP_FREEZE:
        return ENOTSUPP
    if (fd is Fd.WRITER and command in _READS) or (fd is Fd.READER and command in _WRITES):
        return errno.EPERM
    return 0


def _of_key(key: Key, order: Sequence[Key]) -> int:
    """The errno of asking for a key that could be read."""
    if key is Key.RESERVED:
        return errno.EINVAL
    return 0 if key in order else errno.ENOENT


def following(start: Key, order: Sequence[Key]) -> list[Key]:
    """The keys that come after one; after NULL all of them."""
    return list(order[order.index(start) + 1 :] if start in order else order)


def _element(request: OnElement, order: Sequence[Key]) -> int:
    command, key, value = request.command, request.key, request.value
    given = (key is not Key.NULL, value is not Memory.NULL, request.flags != 0, request.stray)
    if any(given[FIELDS[command] :]):
        return errno.EINVAL
    if command is Command.MAP_LOOKUP_AND_DELETE_ELEM and request.flags & ~F_LOCK:
        return errno.EINVAL
    if code := _access(command, request.fd):
        return code
    # An update may have flags of its own; the others are of maps with locks, or of each CPU.
    allowed = 0xFFFFFFFF & ~(F_LOCK | F_CPU | F_ALL_CPUS)
    if request.flags & ~(allowed if command is Command.MAP_UPDATE_ELEM else 0):
        return errno.EINVAL
    if not key.readable and not (command is Command.MAP_GET_NEXT_KEY and key is Key.NULL):
        return errno.EFAULT
    if command is Command.MAP_UPDATE_ELEM and value is not Memory.ROOM:
        return errno.EFAULT
    if command in (Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM):
        return errno.EOPNOTSUPP
    if command is Command.MAP_LOOKUP_AND_DELETE_ELEM:
        return ENOTSUPP
    if key is not Key.NULL and (code := _of_key(key, order)):
        return code
    if command is Command.MAP_GET_NEXT_KEY and not following(key, order):
        return errno.ENOENT
    return 0 if value is Memory.ROOM else errno.EFAULT


def _batch(request: OnBatch, order: Sequence[Key]) -> int:
    if request.stray:
        return errno.EINVAL
    if code := _access(request.command, request.fd):
        return code
    if request.command is not Command.MAP_LOOKUP_BATCH:
        return ENOTSUPP
    if request.flags:
        return errno.EINVAL
    if not request.count:
        return 0
    if request.start is Key.UNMAPPED:
        return errno.EFAULT
    if request.start is not Key.NULL and (code := _of_key(request.start, order)):
        return code
    found = min(request.count, len(following(request.start, order)))
    if found and {request.keys, request.values, request.end} != {Memory.ROOM}:
        return errno.EFAULT
    return 0 if found == request.count else errno.ENOENT


def answer(request: Request, order: Sequence[Key]) -> int:
    """The errno of a command, or 0.

    Args:
        request: the command.
        order: the keys in the map, in the order of a walk.
    """
    if isinstance(request, OnElement):
        return _element(request, order)
    return _batch(request, order)


def handed_out(request: Request, order: Sequence[Key]) -> list[Key]:
    """The keys that a command gives to the caller; the arguments are those of `answer`."""
    code = answer(request, order)
    if isinstance(request, OnElement):
        wanted = request.command is Command.MAP_GET_NEXT_KEY and code == 0
        return following(request.key, order)[:1] if wanted else []
    if request.command is not Command.MAP_LOOKUP_BATCH or code not in (0, errno.ENOENT):
        return []
    if request.start is Key.NULL or request.start in order:
        return following(request.start, order)[: request.count]
    return []
