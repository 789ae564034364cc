# SPDX-License-Identifier: GPL-2.0-only
"""An outer map takes only flow maps whose values are as long as its template's.

A program is verified against the template: it may read as much as that has.
"""

import errno
import os
import struct
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

_SLOT = bytes(4)
_SIZES = (uapi.VALUE_SIZE_VER0, uapi.VALUE_SIZE - 8, uapi.VALUE_SIZE)


def _id_in(outer: int) -> int:
    return int.from_bytes(bpf.lookup_raw(outer, _SLOT, 4), "little")


@pytest.mark.clause("FM-13.2", "MM-4.5", "MM-9.8")
@pytest.mark.parametrize(
    "outer_type",
    [bpf_attr.MAP_TYPE_ARRAY_OF_MAPS, bpf_attr.MAP_TYPE_HASH_OF_MAPS],
    ids=["array", "hash"],
)
def test_inner_flow_map_with_other_value_size_is_einval(
    flowmap_loaded: str, make_flowmap: MakeFlowmap, cleanup: ExitStack, outer_type: int
) -> None:
    """A flow map with a shorter or longer value than the template is refused, and takes no place.

    One of the same size is taken, whatever its capacity and ``map_extra``.
    """
    maps = {size: make_flowmap(value_size=size) for size in _SIZES}
    others = {
        size: make_flowmap(None, 8, value_size=size, map_extra=uapi.PASSIVE) for size in _SIZES
    }
    references = modules.refcount(flowmap_loaded)
    for size in _SIZES:
        outer = bpf.map_create(outer_type, 4, 4, 1, inner_map_fd=maps[size])
        undo = cleanup.enter_context(ExitStack())
        undo.callback(os.close, outer)
        bpf.update_raw(outer, _SLOT, struct.pack("=I", others[size]))
        expected = bpf.map_info(others[size]).id
        assert _id_in(outer) == expected
        for other in _SIZES:
            if other == size:
                continue
            with expect_errno(errno.EINVAL):
                bpf.update_raw(outer, _SLOT, struct.pack("=I", maps[other]))
            assert _id_in(outer) == expected, f"template {size}, map {other}"
        bpf.update_raw(outer, _SLOT, struct.pack("=I", maps[size]))
        assert _id_in(outer) == bpf.map_info(maps[size]).id
        assert modules.refcount(flowmap_loaded) > references
        undo.close()
