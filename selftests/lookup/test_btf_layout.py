# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's BTF describes key and value as the contract does: offsets, sizes, no padding."""

import ctypes

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf.vmlinux_types import struct_members

# Members with other names here than in the kernel; IPv4 has its own names for the first 4 bytes.
_NAMES = {
    "src": ("src_v4", "src_v6"),
    "dst": ("dst_v4", "dst_v6"),
    "tun_src": ("tun_src_v4", "tun_src_v6"),
    "tun_dst": ("tun_dst_v4", "tun_dst_v6"),
    "ports": ("src_port", "dst_port"),
}
_HALVES = ("src_port", "dst_port")


def _expected(kind: type[ctypes.Structure]) -> set[tuple[str, int, int]]:
    """Return name, offset and size of each member, without reserved ones."""
    members = set()
    for field in kind._fields_:
        name = field[0]
        place = getattr(kind, name)
        if name.startswith("reserved"):
            continue
        for part in _NAMES.get(name, (name,)):
            if part in _HALVES:
                members.add((part, place.offset + 2 * _HALVES.index(part), 2))
            elif part.endswith("_v4"):
                members.add((part, place.offset, 4))
            else:
                members.add((part, place.offset, place.size))
    return members


@pytest.mark.clause("FM-3.1", "FM-3.2", "FM-13.4")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bpf_flowmap_encap", uapi.Encap),
        ("bpf_flowmap_key", uapi.Key),
        ("bpf_flowmap_value", uapi.Value),
    ],
    ids=["encap", "key", "value"],
)
def test_vmlinux_btf_has_members_at_documented_offsets(
    name: str, kind: type[ctypes.Structure]
) -> None:
    """BTF in vmlinux has every member at its offset, no other one, and no byte without a member."""
    size, members = struct_members(name)
    assert size == ctypes.sizeof(kind)
    described = {
        (member.name, member.offset, member.size)
        for member in members
        if not member.name.startswith("reserved")
    }
    assert described == _expected(kind)
    covered = {at for member in members for at in range(member.offset, member.offset + member.size)}
    assert covered == set(range(size)), "implicit padding"
