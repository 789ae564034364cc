# SPDX-License-Identifier: GPL-2.0-only
"""Random attributes for BPF_MAP_CREATE: each gives the documented errno."""

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
from fixtures.guest.runtime.hypothesis_support import mostly_default
from selftests.model import map_create_oracle
from selftests.model.map_create_oracle import (
    ATTR_SIZES,
    BAD_FD,
    NONZERO_OFFSETS,
    OTHER_FD,
    READABLE,
    UNMAPPED,
    CreateRequest,
)

EXAMPLES = 80

_UNMAPPED_ADDRESS = 0xDEAD0000
_UNUSED_FD = 0x7FFFFFFF


class _AttrBuffer(ctypes.Structure):
    """Two pages of memory for the attributes."""

    _fields_ = (("bytes", ctypes.c_ubyte * (2 * mmap.PAGESIZE)),)


LATE_CHECKED = ("map_token_fd", "btf_value_type_id", "excl_prog_hash")
"""Fields that the kernel checks late, with other errnos: drawn more often to get that far."""

OVERRIDES = st.lists(
    st.sampled_from([*map_create_oracle.BOUNDARY_VALUES, *LATE_CHECKED * 3])
    .map(map_create_oracle.BOUNDARY_VALUES.__getitem__)
    .flatmap(st.sampled_from),
    max_size=3,
).map(lambda overrides: {name: value for override in overrides for name, value in override.items()})
"""Up to three overrides of the valid attributes; some of them are valid, too."""

REQUESTS = st.builds(
    CreateRequest,
    overrides=OVERRIDES,
    # Mostly the full size: the kernel does not check a field beyond the size.
    attr_size=mostly_default(map_create_oracle.LAST_FIELD_END, ATTR_SIZES, 6),
    nonzero_offset=mostly_default(None, NONZERO_OFFSETS, 8),
    privileged=mostly_default(True, [False], 5),
)


def _create(request: CreateRequest, file: int) -> int:
    """Run BPF_MAP_CREATE and close the map again; return the errno, or 0.

    Args:
        request: the attributes.
        file: descriptor of a file that is not what the kernel asks for.
    """
    prog_hash = ctypes.create_string_buffer(32)
    placeholders = {
        BAD_FD: _UNUSED_FD,
        OTHER_FD: file,
        UNMAPPED: _UNMAPPED_ADDRESS,
        READABLE: ctypes.addressof(prog_hash),
    }
    fields = {
        name: placeholders[value] if isinstance(value, str) else value
        for name, value in (map_create_oracle.VALID_ATTRS | request.overrides).items()
    }
    attr = bpf_attr.MapCreateAttr(map_type=bpf.flowmap_type(), **fields)
    attr_buffer = _AttrBuffer()
    ctypes.memmove(attr_buffer.bytes, ctypes.addressof(attr), map_create_oracle.LAST_FIELD_END)
    if request.nonzero_offset is not None:
        attr_buffer.bytes[request.nonzero_offset] = 1
    return errno_of(lambda: bpf.bpf(bpf_attr.Command.MAP_CREATE, attr_buffer, request.attr_size))


@pytest.mark.clause(
    "FM-1.1", "FM-1.2", "FM-1.3", "FM-1.4", "FM-1.5", "FM-1.6", "FM-1.9", "FM-1.10", "MM-5.1"
)
@pytest.mark.soak
@pytest.mark.deadline(120)
def test_random_map_create_attrs_return_documented_errno(
    flowmap_loaded: str, cleanup: ExitStack
) -> None:
    """Random BPF_MAP_CREATE calls return the oracle's errno and leak no module reference."""
    file, other = os.pipe()
    cleanup.callback(os.close, file)
    cleanup.callback(os.close, other)

    def check(request: CreateRequest) -> None:
        expected, failing_check = map_create_oracle.first_failing_check(request)

        def unprivileged() -> int:
            child_process.drop_capabilities_except()
            return _create(request, file)

        code = (
            _create(request, file)
            if request.privileged
            else child_process.run_in_child(unprivileged)
        )
        assert code == expected, f"expected because of: {failing_check or 'no failing check'}"
        modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)

    hypothesis_support.run_examples(check, EXAMPLES, request=REQUESTS)
    assert modules.loaded(flowmap_loaded)
