# SPDX-License-Identifier: GPL-2.0-only
"""Expected errno of BPF_MAP_CREATE for any attributes of a flow map: docs/series.md, "Errors".

The order of the checks matters: the first failing check gives the errno.
"""

import errno
import mmap
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf.bpf_attr import MapCreateAttr

BAD_FD, OTHER_FD = "unused fd", "fd of another file"
"""Placeholders for wrong descriptors: an unused number, and the fd of another kind of file."""

UNMAPPED, READABLE = "unmapped", "readable"
"""Placeholders for addresses: one that cannot be read, and one of 32 readable bytes."""

AttrValue = int | str | bytes

VALID_ATTRS: dict[str, AttrValue] = {
    "key_size": uapi.KEY_SIZE,
    "value_size": uapi.VALUE_SIZE,
    "max_entries": 8,
    "map_flags": bpf_attr.F_RDONLY_PROG,
}
"""Attributes that create a flow map; every other field is 0."""

F_NUMA_NODE, F_TOKEN_FD = 1 << 2, 1 << 16
NUMA_NODES = 1
"""Number of NUMA nodes of the VM (`fixtures.host.vm`)."""

_U32_BOUNDARIES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)
_RDONLY_PROG = bpf_attr.F_RDONLY_PROG


def _combinations(**fields: Iterable[AttrValue]) -> tuple[dict[str, AttrValue], ...]:
    """Return every combination of the given values of the fields."""
    return tuple(dict(zip(fields, values, strict=True)) for values in product(*fields.values()))


_DESCRIPTORS = (BAD_FD, OTHER_FD)

BOUNDARY_VALUES: dict[str, tuple[dict[str, AttrValue], ...]] = {
    "key_size": _combinations(key_size=(uapi.KEY_SIZE - 1, uapi.KEY_SIZE + 1, *_U32_BOUNDARIES)),
    "value_size": _combinations(
        value_size=(
            uapi.VALUE_SIZE_VER0 - 1,
            uapi.VALUE_SIZE_VER0,
            uapi.VALUE_SIZE_VER0 + 1,
            uapi.VALUE_SIZE - 1,
            uapi.VALUE_SIZE + 1,
            *_U32_BOUNDARIES,
        )
    ),
    "max_entries": _combinations(max_entries=(*_U32_BOUNDARIES, 2, 3)),
    "valid map_flags": _combinations(
        map_flags=(_RDONLY_PROG | bpf_attr.F_RDONLY, _RDONLY_PROG | bpf_attr.F_WRONLY)
    ),
    "invalid map_flags": _combinations(
        map_flags=(
            0,
            _RDONLY_PROG | bpf_attr.F_RDONLY | bpf_attr.F_WRONLY,
            _RDONLY_PROG | bpf_attr.F_WRONLY_PROG,
            _RDONLY_PROG | bpf_attr.F_NO_PREALLOC,
            bpf_attr.F_RDONLY | bpf_attr.F_WRONLY,
            0xFFFFFFFF & ~F_TOKEN_FD,
        )
    ),
    "map_name": _combinations(
        map_name=(b"flows", b"a.b_C9", b"a-b", b"\x80", b"fifteen_letters", b"sixteen_letters_")
    ),
    "map_ifindex": _combinations(map_ifindex=_U32_BOUNDARIES),
    "map_extra": _combinations(
        map_extra=(*_U32_BOUNDARIES, 2, uapi.PASSIVE | 1 << 32, 1 << 63, (1 << 64) - 1)
    ),
    "numa_node": _combinations(
        map_flags=(_RDONLY_PROG, _RDONLY_PROG | F_NUMA_NODE), numa_node=_U32_BOUNDARIES
    ),
    "map_token_fd": _combinations(
        map_flags=(_RDONLY_PROG, _RDONLY_PROG | F_TOKEN_FD, F_TOKEN_FD),
        map_token_fd=(0, *_DESCRIPTORS),
    ),
    "btf_value_type_id": _combinations(
        btf_value_type_id=_U32_BOUNDARIES, btf_fd=(0, *_DESCRIPTORS)
    ),
    "btf_key_type_id": _combinations(btf_key_type_id=_U32_BOUNDARIES, btf_fd=_DESCRIPTORS),
    "btf_vmlinux_value_type_id": _combinations(btf_vmlinux_value_type_id=_U32_BOUNDARIES),
    "excl_prog_hash": _combinations(
        excl_prog_hash=(UNMAPPED, READABLE), excl_prog_hash_size=(31, 32, 33, *_U32_BOUNDARIES)
    ),
    "excl_prog_hash_size": _combinations(excl_prog_hash_size=_U32_BOUNDARIES),
    "ignored fields": (
        *_combinations(inner_map_fd=_DESCRIPTORS),
        *_combinations(value_type_btf_obj_fd=_DESCRIPTORS),
    ),
}
"""Boundary values of every field, with the fields that give it a meaning."""


def field_offset(name: str) -> int:
    """Return a field's offset in ``union bpf_attr`` in bytes."""
    result: int = MapCreateAttr.__dict__[name].offset
    return result


_FIELD_NAMES = {name for edges in BOUNDARY_VALUES.values() for change in edges for name in change}
_LAST = MapCreateAttr.__dict__["excl_prog_hash_size"]
LAST_FIELD_END: int = _LAST.offset + _LAST.size
"""End of the command's last field in bytes; ``union bpf_attr`` is longer."""

ATTR_SIZES = (
    LAST_FIELD_END,
    *sorted({field_offset(name) for name in _FIELD_NAMES} | {0, mmap.PAGESIZE, mmap.PAGESIZE + 1}),
)
NONZERO_OFFSETS = (LAST_FIELD_END, mmap.PAGESIZE - 1)


@dataclass(frozen=True)
class CreateRequest:
    """One BPF_MAP_CREATE call.

    Attributes:
        overrides: fields that differ from `VALID_ATTRS`.
        attr_size: the size of the attributes in bytes, as passed to bpf(2).
        nonzero_offset: offset behind the last field of a byte that is not 0, or None.
        privileged: whether the caller has CAP_BPF and CAP_NET_ADMIN.
    """

    overrides: dict[str, AttrValue] = field(default_factory=dict)
    attr_size: int = LAST_FIELD_END
    nonzero_offset: int | None = None
    privileged: bool = True

    @property
    def visible_fields(self) -> dict[str, AttrValue]:
        """All fields as the kernel sees them: those beyond the size are 0."""
        fields: dict[str, AttrValue] = {
            "map_type": bpf_attr.MAP_TYPE_HASH,
            **VALID_ATTRS,
            **self.overrides,
        }
        return {
            name: value for name, value in fields.items() if field_offset(name) < self.attr_size
        }


def _int_field(visible_fields: dict[str, AttrValue], name: str) -> int:
    value = visible_fields.get(name, 0)
    assert isinstance(value, int), name
    return value


def _has_any_flag(visible_fields: dict[str, AttrValue], bits: int) -> bool:
    return bool(_int_field(visible_fields, "map_flags") & bits)


def _invalid_name(visible_fields: dict[str, AttrValue]) -> bool:
    name = visible_fields.get("map_name", b"")
    assert isinstance(name, bytes)
    letters = (string.ascii_letters + string.digits + "_.").encode()
    return len(name) > 15 or any(letter not in letters for letter in name)


def _has_btf_type(visible_fields: dict[str, AttrValue]) -> bool:
    return bool(visible_fields.get("btf_key_type_id") or visible_fields.get("btf_value_type_id"))


def _fd_field(visible_fields: dict[str, AttrValue], name: str) -> AttrValue:
    # Descriptor 0 is the caller's standard input.
    return visible_fields.get(name) or OTHER_FD


Check = tuple[str, Callable[[CreateRequest, dict[str, AttrValue]], bool], int]

CHECKS: tuple[Check, ...] = (
    # Checks of every bpf(2) command.
    ("attr size above one page", lambda r, _: r.attr_size > mmap.PAGESIZE, errno.E2BIG),
    (
        "non-zero byte that this kernel does not know",
        lambda r, _: r.nonzero_offset == mmap.PAGESIZE - 1 and r.nonzero_offset < r.attr_size,
        errno.E2BIG,
    ),
    (
        "non-zero field of another command",
        lambda r, _: r.nonzero_offset == LAST_FIELD_END and r.nonzero_offset < r.attr_size,
        errno.EINVAL,
    ),
    # Checks before the map type is looked up.
    ("map_type cut off", lambda _, s: "map_type" not in s, errno.EINVAL),
    (
        "btf_vmlinux_value_type_id set",
        lambda _, s: bool(s.get("btf_vmlinux_value_type_id")),
        errno.EINVAL,
    ),
    (
        "btf_key_type_id without btf_value_type_id",
        lambda _, s: bool(s.get("btf_key_type_id") and not s.get("btf_value_type_id")),
        errno.EINVAL,
    ),
    (
        "numa_node does not exist",
        # -1 is NUMA_NO_NODE: any node.
        lambda _, s: (
            _has_any_flag(s, F_NUMA_NODE) and NUMA_NODES <= _int_field(s, "numa_node") < 0xFFFFFFFF
        ),
        errno.EINVAL,
    ),
    ("map_ifindex set", lambda _, s: bool(s.get("map_ifindex")), errno.EINVAL),
    (
        "map_token_fd is not an open fd",
        lambda _, s: _has_any_flag(s, F_TOKEN_FD) and _fd_field(s, "map_token_fd") == BAD_FD,
        errno.EBADF,
    ),
    ("map_token_fd is not a token", lambda _, s: _has_any_flag(s, F_TOKEN_FD), errno.EINVAL),
    # Permission.
    ("capabilities missing", lambda r, _: not r.privileged, errno.EPERM),
    # Checks of the map type: map_alloc_check.
    ("key_size wrong", lambda _, s: s.get("key_size", 0) != uapi.KEY_SIZE, errno.EINVAL),
    (
        "value_size smaller than version 0 or larger than the current one",
        lambda _, s: not uapi.VALUE_SIZE_VER0 <= _int_field(s, "value_size") <= uapi.VALUE_SIZE,
        errno.EINVAL,
    ),
    (
        "max_entries smaller than the keys of one flow",
        lambda _, s: _int_field(s, "max_entries") < uapi.keys_for_flows(1),
        errno.EINVAL,
    ),
    (
        "map_extra with another bit than BPF_FLOWMAP_PASSIVE",
        lambda _, s: bool(_int_field(s, "map_extra") & ~uapi.PASSIVE),
        errno.EINVAL,
    ),
    ("BPF_F_RDONLY_PROG missing", lambda _, s: not _has_any_flag(s, _RDONLY_PROG), errno.EINVAL),
    (
        "unsupported map flag",
        lambda _, s: _has_any_flag(s, ~(_RDONLY_PROG | bpf_attr.F_RDONLY | bpf_attr.F_WRONLY)),
        errno.EINVAL,
    ),
    # Checks after the map has been allocated.
    ("map_name invalid", lambda _, s: _invalid_name(s), errno.EINVAL),
    (
        "btf_fd is not an open fd",
        lambda _, s: _has_btf_type(s) and _fd_field(s, "btf_fd") == BAD_FD,
        errno.EBADF,
    ),
    ("btf_fd is not BTF", lambda _, s: _has_btf_type(s), errno.EINVAL),
    (
        "excl_prog_hash_size wrong",
        lambda _, s: "excl_prog_hash" in s and s.get("excl_prog_hash_size", 0) != 32,
        errno.EINVAL,
    ),
    (
        "excl_prog_hash not readable",
        lambda _, s: s.get("excl_prog_hash") == UNMAPPED,
        errno.EFAULT,
    ),
    (
        "excl_prog_hash_size without a hash",
        lambda _, s: "excl_prog_hash" not in s and bool(s.get("excl_prog_hash_size")),
        errno.EINVAL,
    ),
    (
        "BPF_F_RDONLY with BPF_F_WRONLY",
        lambda _, s: _has_any_flag(s, bpf_attr.F_RDONLY) and _has_any_flag(s, bpf_attr.F_WRONLY),
        errno.EINVAL,
    ),
)
"""Name, condition under which the check fails, and errno, in the kernel's order."""


def first_failing_check(request: CreateRequest) -> tuple[int, str]:
    """Return the errno that the kernel must give to a creation, and the check that fails.

    Returns:
        The errno and the name of the first failing check; 0 and "" if the map is created.
    """
    visible_fields = request.visible_fields
    for check, fails, code in CHECKS:
        if fails(request, visible_fields):
            return code, check
    return 0, ""
