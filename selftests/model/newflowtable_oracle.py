# SPDX-License-Identifier: GPL-2.0-only
"""Expected errno of NFT_MSG_NEWFLOWTABLE, and the flowtable that exists after it.

docs/series.md, "Errors", describes what the SNOOP flag adds. The other checks and their order
are those of nf_tables_newflowtable() and nft_flowtable_update() in
net/netfilter/nf_tables_api.c.
"""

import errno
from dataclasses import dataclass, replace

from fixtures.guest.net.flowtable import COUNTER, HW_OFFLOAD, INET, IPV4, IPV6, KNOWN_FLAGS, SNOOP

NETDEV = 5
"""NFPROTO_NETDEV: tables of this family cannot have flowtables."""

FAMILIES = (INET, IPV4, IPV6, NETDEV)

EXISTING_DEVICES = ("d0", "d1")
"""Existing devices; none of them supports hardware offload."""
MISSING_DEVICE = "d9"
COUNTER_ATTRS = ("NFTA_FLOWTABLE_SNOOP_ENTRIES", "NFTA_FLOWTABLE_SNOOP_MISSED")
"""Attributes of a snoop table's dump that a request must not have."""
OVERLONG_NAME = "sixteen_letters_"
"""A device name longer than IFNAMSIZ - 1."""

FLAG_VALUES = (
    None, 0, COUNTER, SNOOP, HW_OFFLOAD, SNOOP | COUNTER, SNOOP | HW_OFFLOAD,
    HW_OFFLOAD | COUNTER, 8, SNOOP | 8, 1 << 31, 0xFFFFFFFF,
)  # fmt: skip


@dataclass(frozen=True)
class FlowtableState:
    """A flowtable in the request's table."""

    flags: int = 0
    devices: tuple[str, ...] = ()
    priority: int = 0


@dataclass(frozen=True)
class FlowtableRequest:
    """One NFT_MSG_NEWFLOWTABLE, and the state that it meets.

    Attributes:
        table: whether the table exists before (``existing``), is created in the same
            transaction (``new``) or does not exist (``missing``).
        existing: the flowtable of this name before the request, or None.
        d1_taken: whether another flowtable of the same table has the device d1.
        exclusive: NLM_F_EXCL.
        omitted_attr: an attribute that the message lacks, or None.
        counter_attr: a snoop counter that the message has, or None; only dumps may have them.
        aborted: whether a later message of the transaction fails.
    """

    family: int = INET
    table: str = "existing"
    existing: FlowtableState | None = None
    d1_taken: bool = False
    flags: int | None = None
    devices: tuple[str, ...] = ()
    priority: int = 0
    hook: int = 0
    exclusive: bool = True
    omitted_attr: str | None = None
    counter_attr: str | None = None
    aborted: bool = False


def _device_list_errno(devices: tuple[str, ...]) -> int:
    """Return the errno of a list of devices by itself, or 0."""
    for index, device in enumerate(devices):
        if len(device) > 15:
            return errno.E2BIG
        if device in devices[:index]:
            return errno.EEXIST
    return 0


def _bind_errno(devices: tuple[str, ...], flags: int, *, d1_taken: bool) -> int:
    """Return the errno of registering the devices' hooks, or 0."""
    if flags & SNOOP:
        # A snoop table registers no hook, so it conflicts with none.
        return 0
    for device in devices:
        if d1_taken and device == "d1":
            return errno.EEXIST
        if flags & HW_OFFLOAD and device in EXISTING_DEVICES:
            return errno.EOPNOTSUPP
    return 0


def _update_errno(request: FlowtableRequest, existing: FlowtableState) -> int:
    """Return the errno of updating an existing flowtable, or 0."""
    if request.hook or request.priority != existing.priority:
        return errno.EOPNOTSUPP
    if code := _device_list_errno(request.devices):
        return code
    flags = existing.flags if request.flags is None else request.flags
    if (existing.flags ^ flags) & (HW_OFFLOAD | SNOOP):
        return errno.EOPNOTSUPP
    if flags & SNOOP and flags != SNOOP:
        return errno.EOPNOTSUPP
    added = tuple(device for device in request.devices if device not in existing.devices)
    return _bind_errno(added, existing.flags, d1_taken=request.d1_taken)


def _create_errno(request: FlowtableRequest) -> int:
    """Return the errno of creating a flowtable, or 0."""
    if request.family == NETDEV:
        return errno.ENOENT
    flags = request.flags or 0
    if flags & SNOOP and flags != SNOOP:
        return errno.EOPNOTSUPP
    if request.hook:
        return errno.EOPNOTSUPP
    if code := _device_list_errno(request.devices):
        return code
    return _bind_errno(request.devices, flags, d1_taken=request.d1_taken)


def expected_errno(request: FlowtableRequest) -> int:
    """Return the errno that the kernel must give to the request itself, or 0."""
    if request.counter_attr is not None:
        return errno.EINVAL
    if (
        request.flags is not None
        and request.flags & ~KNOWN_FLAGS
        and request.omitted_attr != "flags"
    ):
        return errno.EINVAL
    if request.omitted_attr == "flags":
        request = replace(request, flags=None)
    elif request.omitted_attr is not None:
        return errno.EINVAL
    if request.table == "missing":
        return errno.ENOENT
    if request.existing is None:
        return _create_errno(request)
    if request.exclusive:
        return errno.EEXIST
    return _update_errno(request, request.existing)


def expected_state(request: FlowtableRequest) -> FlowtableState | None:
    """Return the flowtable that exists after the transaction, or None."""
    if expected_errno(request) or request.aborted:
        return request.existing
    flags = None if request.omitted_attr == "flags" else request.flags
    if request.existing is None:
        return FlowtableState(flags or 0, tuple(sorted(request.devices)), request.priority)
    devices = tuple(sorted({*request.existing.devices, *request.devices}))
    return replace(
        request.existing, flags=request.existing.flags if flags is None else flags, devices=devices
    )
