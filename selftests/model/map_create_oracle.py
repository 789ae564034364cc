# SPDX-License-Identifier: GPL-2.0-only
"""What BPF_MAP_CREATE answers to any attributes for a flow map: docs/series.md, "Errors".

The order of the checks is part of it: who makes several mistakes is told of the first.
"""

import errno
import mmap
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf.bpf_attr import MapCreate

NOTHING, FILE = "nothing", "file"
"""What a descriptor may be besides the right thing: no descriptor, and one of something else."""

UNMAPPED, READABLE = "unmapped", "readable"
"""What an address may be: one that cannot be read, and that of 32 bytes."""

Attribute = int | str | bytes

GOOD: dict[str, Attribute] = {
    "key_size": uapi.KEY_SIZE,
    "value_size": uapi.VALUE_SIZE,
    "max_entries": 8,
    "map_flags": bpf_attr.F_RDONLY_PROG,
}
"""What makes a flow map; every other field is 0."""

F_NUMA_NODE, F_TOKEN_FD = 1 << 2, 1 << 16
NODES = 1
"""NUMA nodes that the machine has (`fixtures.host.vm`)."""

_EDGES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)
_PROG = bpf_attr.F_RDONLY_PROG


def _each(**fields: Iterable[Attribute]) -> tuple[dict[str, Attribute], ...]:
    """Every combination of the values of some fields."""
    return tuple(dict(zip(fields, values, strict=True)) for values in product(*fields.values()))


_DESCRIPTORS = (NOTHING, FILE)

EDGES: dict[str, tuple[dict[str, Attribute], ...]] = {
    "key size": _each(key_size=(uapi.KEY_SIZE - 1, uapi.KEY_SIZE + 1, *_EDGES)),
    "value size": _each(value_size=(uapi.VALUE_SIZE - 1, uapi.VALUE_SIZE + 1, *_EDGES)),
    "capacity": _each(max_entries=_EDGES),
    "good flags": _each(map_flags=(_PROG | bpf_attr.F_RDONLY, _PROG | bpf_attr.F_WRONLY)),
    "bad flags": _each(
        map_flags=(
            0,
            _PROG | bpf_attr.F_RDONLY | bpf_attr.F_WRONLY,
            _PROG | bpf_attr.F_WRONLY_PROG,
            _PROG | bpf_attr.F_NO_PREALLOC,
            bpf_attr.F_RDONLY | bpf_attr.F_WRONLY,
            0xFFFFFFFF & ~F_TOKEN_FD,
        )
    ),
    "name": _each(
        map_name=(b"flows", b"a.b_C9", b"a-b", b"\x80", b"fifteen_letters", b"sixteen_letters_")
    ),
    "device": _each(map_ifindex=_EDGES),
    "extra": _each(map_extra=(*_EDGES, 1 << 63, (1 << 64) - 1)),
    "node": _each(map_flags=(_PROG, _PROG | F_NUMA_NODE), numa_node=_EDGES),
    "token": _each(
        map_flags=(_PROG, _PROG | F_TOKEN_FD, F_TOKEN_FD), map_token_fd=(0, *_DESCRIPTORS)
    ),
    "BTF": _each(btf_value_type_id=_EDGES, btf_fd=(0, *_DESCRIPTORS)),
    "BTF of keys": _each(btf_key_type_id=_EDGES, btf_fd=_DESCRIPTORS),
    "type of vmlinux": _each(btf_vmlinux_value_type_id=_EDGES),
    "hash": _each(excl_prog_hash=(UNMAPPED, READABLE), excl_prog_hash_size=(31, 32, 33, *_EDGES)),
    "hash size": _each(excl_prog_hash_size=_EDGES),
    "not looked at": (
        *_each(inner_map_fd=_DESCRIPTORS),
        *_each(value_type_btf_obj_fd=_DESCRIPTORS),
    ),
}
"""Every field's edges, with the fields that give it a meaning."""


def offset(name: str) -> int:
    """Where a field is."""
    place: int = MapCreate.__dict__[name].offset
    return place


_NAMES = {name for edges in EDGES.values() for change in edges for name in change}
_LAST = MapCreate.__dict__["excl_prog_hash_size"]
END: int = _LAST.offset + _LAST.size
"""Where the last field of the command ends; ``union bpf_attr`` goes on behind it."""

SIZES = (
    END,
    *sorted({offset(name) for name in _NAMES} | {0, mmap.PAGESIZE, mmap.PAGESIZE + 1}),
)
STRAYS = (END, mmap.PAGESIZE - 1)


@dataclass(frozen=True)
class Request:
    """One attempt.

    Attributes:
        changed: the fields that are not as in `GOOD`.
        size: what the caller says the attributes' size is.
        stray: where behind the last field there is a byte that is not 0, or None.
        privileged: whether the caller has CAP_BPF and CAP_NET_ADMIN.
    """

    changed: dict[str, Attribute] = field(default_factory=dict)
    size: int = END
    stray: int | None = None
    privileged: bool = True

    @property
    def seen(self) -> dict[str, Attribute]:
        """All fields as the kernel sees them: what is beyond the size is 0."""
        fields: dict[str, Attribute] = {"map_type": bpf_attr.MAP_TYPE_HASH, **GOOD, **self.changed}
        return {name: value for name, value in fields.items() if offset(name) < self.size}


def _number(seen: dict[str, Attribute], name: str) -> int:
    value = seen.get(name, 0)
    assert isinstance(value, int), name
    return value


def _flags(seen: dict[str, Attribute], bits: int) -> bool:
    return bool(_number(seen, "map_flags") & bits)


def _name_is_bad(seen: dict[str, Attribute]) -> bool:
    name = seen.get("map_name", b"")
    assert isinstance(name, bytes)
    letters = (string.ascii_letters + string.digits + "_.").encode()
    return len(name) > 15 or any(letter not in letters for letter in name)


def _typed(seen: dict[str, Attribute]) -> bool:
    return bool(seen.get("btf_key_type_id") or seen.get("btf_value_type_id"))


def _descriptor(seen: dict[str, Attribute], name: str) -> Attribute:
    # 0 is the caller's standard input.
    return seen.get(name) or FILE


Check = tuple[str, Callable[[Request, dict[str, Attribute]], bool], int]

CHECKS: tuple[Check, ...] = (
    # of any command
    ("size of more than a page", lambda r, _: r.size > mmap.PAGESIZE, errno.E2BIG),
    (
        "something that this kernel does not know",
        lambda r, _: r.stray == mmap.PAGESIZE - 1 and r.stray < r.size,
        errno.E2BIG,
    ),
    (
        "something in a field of other commands",
        lambda r, _: r.stray == END and r.stray < r.size,
        errno.EINVAL,
    ),
    # that need no map type
    ("no type", lambda _, s: "map_type" not in s, errno.EINVAL),
    ("type of vmlinux", lambda _, s: bool(s.get("btf_vmlinux_value_type_id")), errno.EINVAL),
    (
        "key type alone",
        lambda _, s: bool(s.get("btf_key_type_id") and not s.get("btf_value_type_id")),
        errno.EINVAL,
    ),
    ("extra", lambda _, s: bool(s.get("map_extra")), errno.EINVAL),
    (
        "node that is not there",
        # -1 is NUMA_NO_NODE: any.
        lambda _, s: _flags(s, F_NUMA_NODE) and NODES <= _number(s, "numa_node") < 0xFFFFFFFF,
        errno.EINVAL,
    ),
    ("device", lambda _, s: bool(s.get("map_ifindex")), errno.EINVAL),
    (
        "token that is no descriptor",
        lambda _, s: _flags(s, F_TOKEN_FD) and _descriptor(s, "map_token_fd") == NOTHING,
        errno.EBADF,
    ),
    ("token that is something else", lambda _, s: _flags(s, F_TOKEN_FD), errno.EINVAL),
    # who may
    ("capabilities", lambda r, _: not r.privileged, errno.EPERM),
    # of the type
    ("key size", lambda _, s: s.get("key_size", 0) != uapi.KEY_SIZE, errno.EINVAL),
    ("value size", lambda _, s: s.get("value_size", 0) != uapi.VALUE_SIZE, errno.EINVAL),
    ("capacity", lambda _, s: not s.get("max_entries", 0), errno.EINVAL),
    ("writable by programs", lambda _, s: not _flags(s, _PROG), errno.EINVAL),
    (
        "other flag",
        lambda _, s: _flags(s, ~(_PROG | bpf_attr.F_RDONLY | bpf_attr.F_WRONLY)),
        errno.EINVAL,
    ),
    # of the map once it has been made
    ("name", lambda _, s: _name_is_bad(s), errno.EINVAL),
    (
        "BTF that is no descriptor",
        lambda _, s: _typed(s) and _descriptor(s, "btf_fd") == NOTHING,
        errno.EBADF,
    ),
    ("BTF that is something else", lambda _, s: _typed(s), errno.EINVAL),
    (
        "hash of the wrong size",
        lambda _, s: "excl_prog_hash" in s and s.get("excl_prog_hash_size", 0) != 32,
        errno.EINVAL,
    ),
    (
        "hash that cannot be read",
        lambda _, s: s.get("excl_prog_hash") == UNMAPPED,
        errno.EFAULT,
    ),
    (
        "size of no hash",
        lambda _, s: "excl_prog_hash" not in s and bool(s.get("excl_prog_hash_size")),
        errno.EINVAL,
    ),
    (
        "descriptor neither to read nor to write",
        lambda _, s: _flags(s, bpf_attr.F_RDONLY) and _flags(s, bpf_attr.F_WRONLY),
        errno.EINVAL,
    ),
)
"""What is wrong, and its errno, in the kernel's order."""


def answer(request: Request) -> tuple[int, str]:
    """The errno of a creation, and why; 0 and nothing where it succeeds."""
    seen = request.seen
    for what, wrong, code in CHECKS:
        if wrong(request, seen):
            return code, what
    return 0, ""
