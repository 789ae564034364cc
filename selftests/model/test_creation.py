# SPDX-License-Identifier: GPL-2.0-only
"""Random attributes for BPF_MAP_CREATE: each has the errno that the documentation gives it."""

import ctypes
import mmap
import os
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st

from fixtures.guest import bpf_attr, examples, modules, process
from fixtures.guest import bpf_syscall as bpf
from fixtures.guest.examples import mostly
from fixtures.guest.refusal import errno_of
from selftests.model import creation
from selftests.model.creation import FILE, NOTHING, READABLE, SIZES, STRAYS, UNMAPPED, Request

EXAMPLES = 80

_UNMAPPED = 0xDEAD0000
_NO_SUCH_FD = 0x7FFFFFFF


class _Block(ctypes.Structure):
    """More than a page for the attributes."""

    _fields_ = (("bytes", ctypes.c_ubyte * (2 * mmap.PAGESIZE)),)


LATE = ("token", "BTF", "hash")
"""What is looked at after much else, and whose errno is another: only if the rest is right."""

CHANGES = st.lists(
    st.sampled_from([*creation.EDGES, *LATE * 3])
    .map(creation.EDGES.__getitem__)
    .flatmap(st.sampled_from),
    max_size=3,
).map(lambda changes: {name: value for change in changes for name, value in change.items()})
"""Up to three things that are not as they should be, or are so in another way."""

REQUESTS = st.builds(
    Request,
    changed=CHANGES,
    # Mostly all of it: what is cut off hides what else is wrong.
    size=mostly(creation.END, SIZES, 6),
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
        for name, value in (creation.GOOD | request.changed).items()
    }
    attr = bpf_attr.MapCreate(map_type=bpf.flowmap_type(), **fields)
    block = _Block()
    ctypes.memmove(block.bytes, ctypes.addressof(attr), creation.END)
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
        expected, why = creation.answer(request)

        def unprivileged() -> int:
            process.keep_capabilities()
            return _create(request, file)

        got = _create(request, file) if request.privileged else process.in_child(unprivileged)
        assert got == expected, f"expected for: {why or 'nothing is wrong'}"
        modules.await_unreferenced(modules.FLOWMAP)

    examples.explore(attempt, EXAMPLES, request=REQUESTS)
    assert modules.loaded(flowmap_module)
