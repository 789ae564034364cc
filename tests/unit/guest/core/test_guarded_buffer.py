# SPDX-License-Identifier: GPL-2.0-only
"""Buffers that the kernel can fill, and cannot write behind."""

import ctypes
import errno
import mmap
import os
from pathlib import Path

import pytest

from fixtures.guest.core import libc
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.guarded_buffer import FILL, GuardedBuffer


@pytest.mark.parametrize("size", [1, 88, mmap.PAGESIZE - 1, mmap.PAGESIZE, mmap.PAGESIZE + 88])
def test_buffer_has_exactly_its_size(size: int) -> None:
    buffer = GuardedBuffer(size)
    assert (buffer.address + size) % mmap.PAGESIZE == 0
    assert buffer.read() == bytes([FILL]) * size
    with Path("/dev/zero").open("rb", buffering=0) as zero:
        address = ctypes.c_void_p(buffer.address)
        assert libc.call("read", zero.fileno(), address, ctypes.c_size_t(size)) == size
    assert buffer.read() == bytes(size)
    reader, writer = os.pipe()
    try:
        os.write(writer, bytes(8))
        with expect_errno(errno.EFAULT):
            end = ctypes.c_void_p(buffer.address + size - 1)
            libc.call("read", reader, end, ctypes.c_size_t(2))
    finally:
        os.close(reader)
        os.close(writer)


def test_buffer_has_content() -> None:
    buffer = GuardedBuffer(4, b"abcd")
    buffer.write(b"xy")
    assert buffer.read() == b"xycd"
    with pytest.raises(ValueError, match="5 octets for a buffer of 4"):
        buffer.write(b"12345")
    assert GuardedBuffer(0).read() == b""
