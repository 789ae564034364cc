# SPDX-License-Identifier: GPL-2.0-only
"""``map_extra`` of built-in map types means what it meant without modular types."""

import errno
import os
from contextlib import ExitStack
from dataclasses import replace

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import errno_of
from selftests.modular_map.test_builtin_types import BUILTIN_KINDS, Creator

_PAGE = os.sysconf("SC_PAGE_SIZE")
# Values that a type accepts and values that it refuses, from its map_alloc_check() in 7.3.
ACCEPTED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "bloom_filter": ((0, 1, 15), (16, 1 << 32)),
    "arena": ((0, 16 * _PAGE), (1, _PAGE - 1)),
    "rhash": ((0, 1, 8), (9, 1 << 32)),
}
_OTHERS_REFUSE = (1, 1 << 32, 1 << 63)


@pytest.mark.clause("MM-8.1")
@pytest.mark.parametrize("module", ["loaded", "absent"])
def test_map_extra_of_builtin_types_is_as_before(
    request: pytest.FixtureRequest, cleanup: ExitStack, module: str
) -> None:
    """Three built-in types have a use for ``map_extra``; every other one refuses it (EINVAL)."""
    request.getfixturevalue("flowmap_loaded" if module == "loaded" else "flowmap_unloaded")
    creator = Creator(cleanup)
    wrong = []
    for name, kind in BUILTIN_KINDS.items():
        accepted, refused = ACCEPTED.get(name, ((0,), _OTHERS_REFUSE))
        expected = dict.fromkeys(accepted, 0) | dict.fromkeys(refused, errno.EINVAL)
        for extra, number in expected.items():
            entries = 8 if name == "rhash" else kind.max_entries
            wanted = replace(kind, max_entries=entries, fields={"map_extra": extra})
            seen = errno_of(lambda wanted=wanted: creator.create(wanted))  # type: ignore[misc]
            if seen != number:
                wrong.append(f"{name}, map_extra {extra:#x}: {seen}")
    assert not wrong
    fd = creator.create(replace(BUILTIN_KINDS["bloom_filter"], fields={"map_extra": 3}))
    cleanup.callback(os.close, fd)
    assert bpf.map_info(fd).map_extra == 3
