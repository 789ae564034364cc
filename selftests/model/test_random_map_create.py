# SPDX-License-Identifier: GPL-2.0-only
"""Random attributes for BPF_MAP_CREATE: each has the errno that the documentation gives it."""

import ctypes
import mmap
import os
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.runtime.hypothesis_support import mostly
from selftests.model import map_create_oracle
from selftests.model.map_create_oracle import (
    FILE,
    NOTHING,
    READABLE,
    SIZES,
    STRAYS,
    UNMAPPED,
    Request,
)

EXAMPLES = 80

_UNMAPPED = 0xDEAD0000
_NO_SUCH_FD = 0x7FFFFFFF


class _Block(ctypes.Structure):
    """More than a page for the attributes."""

    _fields_ = (("bytes", ctypes.c_ubyte * (2 * mmap.PAGESIZE)),)


LATE = ("token", "BTF", "hash")
"""What is looked at after much else, and whose errno is another: only if the rest is right."""

CHANGES = st.lists(
    st.sampled_from([*map_create_oracle.EDGES, *LATE * 3])
    .map(map_create_oracle.EDGES.__getitem__)
    .flatmap(st.sampled_from),
    max_size=3,
).map(lambda changes: {name: value for change in changes for name, value in change.items()})
"""Up to three things that are not as they should be, or are so in another way."""

REQUESTS = st.builds(
    Request,
    changed=CHANGES,
    # Mostly all of it: what is cut off hides what else is wrong.
    size=mostly(map_create_oracle.END, SIZES, 6),
    stray=mostly(None, STRAYS, 8),
    privileged=mostly(True, [False], 5),
)


def _create(request: Request, file: int) -> int:
    """The errno of a creation, or 0."""
    hashed = ctypes.create_string_buffer(32)
    meant = {
        NOTHING: _NO_SUCH_FD,
        FILE: file,
        UNMAPPED: _UNMAPPED,
        READABLE: ctypes.addressof(hashed),
    }
    fields = {
        name: meant[value] if isinstance(value, str) else value
        for name, value in (map_create_oracle.GOOD | request.changed).items()
    }
    attr = bpf_attr.MapCreate(map_type=bpf.flowmap_type(), **fields)
    block = _Block()
    ctypes.memmove(block.bytes, ctypes.addressof(attr), map_create_oracle.END)
    if request.stray is not None:
        block.bytes[request.stray] = 1
    return errno_of(lambda: bpf.bpf(bpf_attr.Command.MAP_CREATE, block, request.size))


@pytest.mark.clause("FM-1", "MM-3", "MM-5")
@pytest.mark.campaign
@pytest.mark.deadline(120)
def test_any_attributes_have_the_errno_of_the_documentation(
    flowmap_module: str, cleanup: ExitStack
) -> None:
    file, other = os.pipe()
    cleanup.callback(os.close, file)
    cleanup.callback(os.close, other)

    def attempt(request: Request) -> None:
        expected, why = map_create_oracle.answer(request)

        def unprivileged() -> int:
            child_process.keep_capabilities()
            return _create(request, file)

        got = _create(request, file) if request.privileged else child_process.in_child(unprivileged)
        assert got == expected, f"expected for: {why or 'nothing is wrong'}"
        modules.await_unreferenced(modules.FLOWMAP)

    hypothesis_support.explore(attempt, EXAMPLES, request=REQUESTS)
    assert modules.loaded(flowmap_module)
