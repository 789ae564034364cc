# SPDX-License-Identifier: GPL-2.0-only
"""Expected errno of each bpf(2) map command on a flow map: docs/series.md, "Errors".

The order of the checks is the kernel's for any map: fields that the command does not use,
the descriptor, its access mode, flags, memory, and only then the map's own operation.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fixtures.guest.bpf.bpf_attr import Command

ENOTSUPP = 524
"""The kernel's internal errno: bpf(2) returns it for operations that a map type lacks."""

F_LOCK, F_CPU, F_ALL_CPUS = 4, 8, 16

FLAG_VALUES = (
    0,
    1,
    2,
    3,
    F_LOCK,
    F_CPU,
    F_ALL_CPUS,
    1 << 5,
    1 << 31,
    1 << 32,
    F_CPU | 1 << 32,
    1 << 63,
)
BATCH_COUNTS = (0, 1, 2, 3, 64)


class _CodeEnum(StrEnum):
    """An enum whose repr is code, so that Hypothesis prints failing examples as code."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Fd(_CodeEnum):
    """What ``map_fd`` refers to."""

    MAP = "map fd"
    MAP_RDONLY = "map fd, BPF_F_RDONLY"
    MAP_WRONLY = "map fd, BPF_F_WRONLY"
    OTHER_FILE = "fd of another file"
    BAD_FD = "not an open fd"


class UserPointer(_CodeEnum):
    """What a user address points to."""

    NULL = "NULL"
    UNMAPPED = "unmapped"
    VALID = "valid"


class Key(_CodeEnum):
    """What a key's address points to; both directions of one flow are in the map."""

    NULL = "NULL"
    UNMAPPED = "unmapped"
    ORIGINAL = "original"
    REPLY = "reply"
    UNKNOWN = "not in the map"
    RESERVED = "reserved byte set"
    NO_L3PROTO = "L3 protocol 0"

    @property
    def readable(self) -> bool:
        """Whether the kernel can read the key."""
        return self not in (Key.NULL, Key.UNMAPPED)

    @property
    def in_map(self) -> bool:
        """Whether the map has the key."""
        return self in (Key.ORIGINAL, Key.REPLY)


ELEM_CMDS = (
    Command.MAP_LOOKUP_ELEM,
    Command.MAP_UPDATE_ELEM,
    Command.MAP_DELETE_ELEM,
    Command.MAP_GET_NEXT_KEY,
    Command.MAP_LOOKUP_AND_DELETE_ELEM,
    Command.MAP_FREEZE,
)
BATCH_CMDS = (
    Command.MAP_LOOKUP_BATCH,
    Command.MAP_LOOKUP_AND_DELETE_BATCH,
    Command.MAP_UPDATE_BATCH,
    Command.MAP_DELETE_BATCH,
)

USED_FIELD_COUNT = {
    Command.MAP_LOOKUP_ELEM: 3,
    Command.MAP_UPDATE_ELEM: 3,
    Command.MAP_DELETE_ELEM: 1,
    Command.MAP_GET_NEXT_KEY: 2,
    Command.MAP_LOOKUP_AND_DELETE_ELEM: 3,
    Command.MAP_FREEZE: 0,
}
"""How many of the fields key, value and flags a command uses; all later bytes must be 0."""

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
class ElemRequest:
    """A command on one element.

    For BPF_MAP_GET_NEXT_KEY ``value`` is the address of the next key.
    """

    command: Command
    fd: Fd = Fd.MAP
    key: Key = Key.ORIGINAL
    value: UserPointer = UserPointer.VALID
    flags: int = 0
    nonzero_tail: bool = False
    """Whether a byte behind these fields is not 0."""


@dataclass(frozen=True)
class BatchRequest:
    """A batch command."""

    command: Command
    fd: Fd = Fd.MAP
    in_batch: Key = Key.NULL
    keys: UserPointer = UserPointer.VALID
    values: UserPointer = UserPointer.VALID
    out_batch: UserPointer = UserPointer.VALID
    count: int = 64
    flags: int = 0
    """``batch.elem_flags``."""
    batch_flags: int = 0
    """``batch.flags``, which the kernel's generic batch operations ignore."""
    nonzero_tail: bool = False


Request = ElemRequest | BatchRequest


def _fd_errno(command: Command, fd: Fd) -> int:
    """Return the errno of using a descriptor for a command, or 0."""
    if fd is Fd.BAD_FD:
        return errno.EBADF
    if fd is Fd.OTHER_FILE:
        return errno.EINVAL
    if command is Command.MAP_FREEZE:
        return ENOTSUPP
    if (fd is Fd.MAP_WRONLY and command in _READS) or (fd is Fd.MAP_RDONLY and command in _WRITES):
        return errno.EPERM
    return 0


def _lookup_errno(key: Key) -> int:
    """Return the errno of looking up a readable key, or 0."""
    if key is Key.RESERVED:
        return errno.EINVAL
    return 0 if key.in_map else errno.ENOENT


def keys_after(start: Key, positions: Sequence[Key]) -> list[Key]:
    """Return the keys that an iteration visits after ``start``.

    Args:
        start: NULL, and a key that no flow can have, start from the beginning.
        positions: the keys in the map and `Key.UNKNOWN`, in iteration order: a key has a
            position whether it is in the map or not.
    """
    after = positions[positions.index(start) + 1 :] if start in positions else positions
    return [key for key in after if key.in_map]


def _elem_errno(request: ElemRequest, positions: Sequence[Key]) -> int:
    """Return the errno of a command on one element, or 0."""
    command, key, value = request.command, request.key, request.value
    used = (
        key is not Key.NULL,
        value is not UserPointer.NULL,
        request.flags != 0,
        request.nonzero_tail,
    )
    if any(used[USED_FIELD_COUNT[command] :]):
        return errno.EINVAL
    if command is Command.MAP_LOOKUP_AND_DELETE_ELEM and request.flags & ~F_LOCK:
        return errno.EINVAL
    if code := _fd_errno(command, request.fd):
        return code
    # Update flags are the map's own; F_LOCK, F_CPU and F_ALL_CPUS need other map types.
    allowed = 0xFFFFFFFF & ~(F_LOCK | F_CPU | F_ALL_CPUS)
    if request.flags & ~(allowed if command is Command.MAP_UPDATE_ELEM else 0):
        return errno.EINVAL
    if not key.readable and not (command is Command.MAP_GET_NEXT_KEY and key is Key.NULL):
        return errno.EFAULT
    if command is Command.MAP_UPDATE_ELEM and value is not UserPointer.VALID:
        return errno.EFAULT
    if command in (Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM):
        return errno.EOPNOTSUPP
    if command is Command.MAP_LOOKUP_AND_DELETE_ELEM:
        return ENOTSUPP
    if command is Command.MAP_GET_NEXT_KEY:
        if not keys_after(key, positions):
            return errno.ENOENT
    elif code := _lookup_errno(key):
        return code
    return 0 if value is UserPointer.VALID else errno.EFAULT


def _batch_errno(request: BatchRequest, positions: Sequence[Key]) -> int:
    """Return the errno of a batch command, or 0."""
    if request.nonzero_tail:
        return errno.EINVAL
    if code := _fd_errno(request.command, request.fd):
        return code
    if request.command is not Command.MAP_LOOKUP_BATCH:
        return ENOTSUPP
    if request.flags:
        return errno.EINVAL
    if not request.count:
        return 0
    if request.in_batch is Key.UNMAPPED:
        return errno.EFAULT
    returned = min(request.count, len(keys_after(request.in_batch, positions)))
    if returned and {request.keys, request.values, request.out_batch} != {UserPointer.VALID}:
        return errno.EFAULT
    return 0 if returned == request.count else errno.ENOENT


def expected_errno(request: Request, positions: Sequence[Key]) -> int:
    """Return the errno that the kernel must give to a command, or 0.

    Args:
        request: the command.
        positions: see `keys_after`.
    """
    if isinstance(request, ElemRequest):
        return _elem_errno(request, positions)
    return _batch_errno(request, positions)


def expected_keys(request: Request, positions: Sequence[Key]) -> list[Key]:
    """Return the keys that the kernel must copy to the caller.

    Args:
        request: the command.
        positions: see `keys_after`.
    """
    code = expected_errno(request, positions)
    if isinstance(request, ElemRequest):
        wanted = request.command is Command.MAP_GET_NEXT_KEY and code == 0
        return keys_after(request.key, positions)[:1] if wanted else []
    if request.command is not Command.MAP_LOOKUP_BATCH or code not in (0, errno.ENOENT):
        return []
    return keys_after(request.in_batch, positions)[: request.count]
