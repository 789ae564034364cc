# SPDX-License-Identifier: GPL-2.0-only
"""Layout of the UAPI structures, and construction of keys."""

import ctypes

import pytest

from fixtures.flowmap import uapi

KEY = {
    "src": 0,
    "dst": 16,
    "ports": 32,
    "iifindex": 36,
    "l3proto": 40,
    "l4proto": 41,
    "tun_l4proto": 42,
    "reserved": 43,
    "encap": 44,
    "tun_src": 52,
    "tun_dst": 68,
}
VALUE = {
    "expires": 0,
    "src": 8,
    "dst": 24,
    "ports": 40,
    "oifindex": 44,
    "flags": 48,
    "ct_id": 52,
    "ct_mark": 56,
    "ct_zone": 60,
    "mtu": 62,
    "dir": 64,
    "xmit_type": 65,
    "h_source": 66,
    "h_dest": 72,
    "tun_l4proto": 78,
    "reserved": 79,
    "encap": 80,
    "tun_src": 88,
    "tun_dst": 104,
}


@pytest.mark.parametrize(
    ("structure", "offsets", "size"),
    [(uapi.Key, KEY, 84), (uapi.Value, VALUE, 120)],
    ids=["key", "value"],
)
def test_struct_layout_matches_contract(
    structure: type[ctypes.Structure], offsets: dict[str, int], size: int
) -> None:
    assert {name: getattr(structure, name).offset for name, *_ in structure._fields_} == offsets
    assert ctypes.sizeof(structure) == size


def test_key_ports_and_encap_are_in_network_order() -> None:
    key = uapi.make_key(
        6, "192.0.2.2", "198.51.100.2", 0x1234, 80, 7, encap=uapi.vlan_encap((0x123,))
    )
    raw = bytes(key)
    assert raw[0:16] == bytes([192, 0, 2, 2]) + bytes(12)
    assert raw[16:32] == bytes([198, 51, 100, 2]) + bytes(12)
    assert raw[32:36] == bytes.fromhex("12340050")
    assert int.from_bytes(raw[36:40], "little") == 7
    assert raw[40:44] == bytes([2, 6, 0, 0])
    assert raw[44:48] == bytes.fromhex("01238100")
    assert raw[48:] == bytes(36)


def test_ipv6_key_fills_whole_address() -> None:
    key = uapi.make_key(17, "2001:db8::1", "2001:db8::2", 1, 2, 3)
    assert bytes(key.src).hex() == "20010db8000000000000000000000001"
    assert (key.l3proto, key.l4proto) == (10, 17)
    assert uapi.format_address(key.dst, 10) == "2001:db8::2"
