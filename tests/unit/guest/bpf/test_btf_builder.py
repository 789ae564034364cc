# SPDX-License-Identifier: GPL-2.0-only
"""BTF that the builder encodes, read back field by field."""

import ctypes
import struct

import pytest

from fixtures.guest.bpf import map_syscalls
from fixtures.guest.bpf.btf_builder import BtfBuilder

_HEADER = struct.Struct("=HBBIIIII")
_INT, _ARRAY, _STRUCT, _UNION = 1, 3, 4, 5


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What `BtfBuilder.load` passes to the kernel."""
    blobs: list[bytes] = []

    def fake_bpf(command: int, attr: ctypes.Structure, size: int | None = None) -> int:
        assert (command, size) == (18, None)
        blobs.append(ctypes.string_at(attr.btf, attr.btf_size))
        return 7

    monkeypatch.setattr(map_syscalls, "bpf", fake_bpf)
    return blobs


def _sections(blob: bytes) -> tuple[bytes, bytes]:
    """Return the types and the strings of BTF, after checks of its header."""
    header = _HEADER.unpack_from(blob)
    magic, version, flags, header_size, type_offset, type_size, string_offset, string_size = header
    assert (magic, version, flags, header_size, type_offset) == (0xEB9F, 1, 0, 24, 0)
    assert string_offset == type_size
    body = blob[header_size:]
    assert len(body) == type_size + string_size
    return body[:type_size], body[type_size:]


def test_struct_of_bytes_is_encoded(loaded: list[bytes]) -> None:
    """A structure has one member: an array of octets as long as the structure."""
    types = BtfBuilder()
    structure = types.add_struct_of_bytes("key", 88)
    assert types.load() == 7
    data, strings = _sections(loaded[0])
    assert strings == b"\0octet\0index\0bytes\0key\0"
    octet, index, array, size = 1, 2, 3, 88
    assert structure == 4
    assert data == b"".join(
        (
            struct.pack("=IIII", strings.index(b"octet"), _INT << 24, 1, 8),
            struct.pack("=IIII", strings.index(b"index"), _INT << 24, 4, 32),
            struct.pack("=IIIIII", 0, _ARRAY << 24, 0, octet, index, size),
            struct.pack("=III", strings.index(b"key"), _STRUCT << 24 | 1, size),
            struct.pack("=III", strings.index(b"bytes"), array, 0),
        )
    )


def test_union_differs_from_struct_in_kind_only(loaded: list[bytes]) -> None:
    """A union is encoded as a structure of another kind."""
    for union in (False, True):
        types = BtfBuilder()
        types.add_struct("value", 8, types.add_int("number", 8), union=union)
        types.load()
    first, second = (_sections(blob) for blob in loaded)
    assert first[1] == second[1]
    kind = slice(16 + 4, 16 + 8)
    assert struct.unpack("=I", first[0][kind]) == (_STRUCT << 24 | 1,)
    assert struct.unpack("=I", second[0][kind]) == (_UNION << 24 | 1,)
    assert first[0][: kind.start] + first[0][kind.stop :] == (
        second[0][: kind.start] + second[0][kind.stop :]
    )
