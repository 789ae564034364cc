# SPDX-License-Identifier: GPL-2.0-only
"""Layout of the UAPI structures, and construction of keys."""

import ctypes
import sys

import pytest

from fixtures.flowmap import uapi

KEY = {
    "src": 0,
    "dst": 16,
    "ports": 32,
    "iifindex": 36,
    "l3proto": 40,
    "l4proto": 41,
    "zone": 42,
    "tun_l4proto": 44,
    "reserved": 45,
    "encap": 48,
    "tun_src": 56,
    "tun_dst": 72,
}
VALUE = {
    "expires": 0,
    "h_dest": 8,
    "reserved": 14,
    "h_source": 16,
    "reserved2": 22,
    "src": 24,
    "dst": 40,
    "ports": 56,
    "oifindex": 60,
    "flags": 64,
    "ct_id": 68,
    "ct_mark": 72,
    "ct_zone": 76,
    "mtu": 78,
    "dir": 80,
    "xmit_type": 81,
    "tun_l4proto": 82,
    "reserved3": 83,
    "encap": 84,
    "reserved4": 92,
    "tun_src": 96,
    "tun_dst": 112,
}


@pytest.mark.parametrize(
    ("structure", "offsets", "size"),
    [(uapi.Key, KEY, 88), (uapi.Value, VALUE, 128)],
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
    assert raw[40:48] == bytes([2, 6, 0, 0, 0, 0, 0, 0])
    assert raw[48:52] == bytes.fromhex("01238100")
    assert raw[52:] == bytes(36)


def test_ipv6_key_fills_whole_address() -> None:
    key = uapi.make_key(17, "2001:db8::1", "2001:db8::2", 1, 2, 3)
    assert bytes(key.src).hex() == "20010db8000000000000000000000001"
    assert (key.l3proto, key.l4proto) == (10, 17)
    assert uapi.format_address(key.dst, 10) == "2001:db8::2"


def test_key_zone_is_in_host_order() -> None:
    key = uapi.make_key(6, "192.0.2.2", "198.51.100.2", 1, 2, 7, zone=0x1234)
    assert bytes(key)[42:44] == (0x1234).to_bytes(2, sys.byteorder)
    assert "zone 4660" in repr(key)


def test_version_0_of_value_ends_before_tunnel_addresses() -> None:
    assert uapi.Value.tun_src.offset == uapi.VALUE_SIZE_VER0


def test_shorter_value_has_zeroes_for_missing_fields() -> None:
    whole = bytes(range(1, uapi.VALUE_SIZE + 1))
    value = uapi.value_from_bytes(whole[: uapi.VALUE_SIZE_VER0 + 4])
    assert bytes(value) == whole[: uapi.VALUE_SIZE_VER0 + 4] + bytes(28)


def test_flow_has_two_keys() -> None:
    assert uapi.keys_for_flows(100) == 200
