# SPDX-License-Identifier: GPL-2.0-only
"""What nf_tables answers to NFT_MSG_NEWFLOWTABLE, and what is there after it.

What is new with SNOOP is in docs/series.md, "Errors"; the rest, and the order, are
nf_tables_newflowtable() and nft_flowtable_update() in net/netfilter/nf_tables_api.c.
"""

import errno
from dataclasses import dataclass, replace

from fixtures.guest.net.flowtable import COUNTER, HW_OFFLOAD, INET, IPV4, IPV6, KNOWN_FLAGS, SNOOP

NETDEV = 5
"""NFPROTO_NETDEV: a family of tables that has no flow tables."""

FAMILIES = (INET, IPV4, IPV6, NETDEV)

PRESENT = ("d0", "d1")
"""Devices that there are; none of them takes flows into hardware."""
ABSENT = "d9"
LONG = "sixteen_letters_"
"""Longer than a device's name can be."""

FLAGS = (
    None, 0, COUNTER, SNOOP, HW_OFFLOAD, SNOOP | COUNTER, SNOOP | HW_OFFLOAD,
    HW_OFFLOAD | COUNTER, 8, SNOOP | 8, 1 << 31, 0xFFFFFFFF,
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A flow table that is there already, in the table that the request is about."""

    flags: int = 0
    devices: tuple[str, ...] = ()
    priority: int = 0


@dataclass(frozen=True)
class Request:
    """One NFT_MSG_NEWFLOWTABLE, and where it comes.

    Attributes:
        table: whether the table is there before (``made``), comes in the same transaction
            (``new``) or not at all (``missing``).
        before: the flow table of this name, where there is one.
        rival: whether another flow table of the same table has the device d1.
        exclusive: NLM_F_EXCL.
        lacks: an attribute that is left out.
        aborted: whether the transaction goes on with something that must fail.
    """

    family: int = INET
    table: str = "made"
    before: Known | None = None
    rival: bool = False
    flags: int | None = None
    devices: tuple[str, ...] = ()
    priority: int = 0
    hook: int = 0
    exclusive: bool = True
    lacks: str | None = None
    aborted: bool = False


def _listed(devices: tuple[str, ...]) -> int:
    """The errno of a list of devices by itself."""
    for place, device in enumerate(devices):
        if len(device) > 15:
            return errno.E2BIG
        if device in devices[:place]:
            return errno.EEXIST
    return 0


def _bound(devices: tuple[str, ...], flags: int, *, rival: bool) -> int:
    """The errno of taking the hooks of devices."""
    if flags & SNOOP:
        # It takes no hook, so it is in nobody's way.
        return 0
    for device in devices:
        if rival and device == "d1":
            return errno.EEXIST
        if flags & HW_OFFLOAD and device in PRESENT:
            return errno.EOPNOTSUPP
    return 0


def _update(request: Request, before: Known) -> int:
    if request.hook or request.priority != before.priority:
        return errno.EOPNOTSUPP
    if code := _listed(request.devices):
        return code
    flags = before.flags if request.flags is None else request.flags
    if (before.flags ^ flags) & (HW_OFFLOAD | SNOOP):
        return errno.EOPNOTSUPP
    if flags & SNOOP and flags != SNOOP:
        return errno.EOPNOTSUPP
    added = tuple(device for device in request.devices if device not in before.devices)
    return _bound(added, before.flags, rival=request.rival)


def _create(request: Request) -> int:
    if request.family == NETDEV:
        return errno.ENOENT
    flags = request.flags or 0
    if flags & SNOOP and flags != SNOOP:
        return errno.EOPNOTSUPP
    if request.hook:
        return errno.EOPNOTSUPP
    if code := _listed(request.devices):
        return code
    return _bound(request.devices, flags, rival=request.rival)


def answer(request: Request) -> int:
    """The errno of the request itself, or 0."""
    if request.flags is not None and request.flags & ~KNOWN_FLAGS and request.lacks != "flags":
        return errno.EINVAL
    if request.lacks == "flags":
        request = replace(request, flags=None)
    elif request.lacks is not None:
        return errno.EINVAL
    if request.table == "missing":
        return errno.ENOENT
    if request.before is None:
        return _create(request)
    if request.exclusive:
        return errno.EEXIST
    return _update(request, request.before)


def after(request: Request) -> Known | None:
    """The flow table that there is in the end, or None."""
    if answer(request) or request.aborted:
        return request.before
    flags = None if request.lacks == "flags" else request.flags
    if request.before is None:
        return Known(flags or 0, tuple(sorted(request.devices)), request.priority)
    devices = tuple(sorted({*request.before.devices, *request.devices}))
    return replace(
        request.before, flags=request.before.flags if flags is None else flags, devices=devices
    )
