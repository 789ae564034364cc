# SPDX-License-Identifier: GPL-2.0-only
"""Flow table messages: encoding and decoding without a kernel."""

import struct

from fixtures.guest.net import flowtable, netlink
from fixtures.guest.net.nft_flowtable_attributes import FlowtableMessage


def test_new_flowtable_encodes_any_flags() -> None:
    msg = flowtable.new_flowtable(1, "spy", "all", flags=0x80000004, devices=["r0"])
    msg.encode()
    data = bytes(msg.data)
    assert struct.pack(">I", 0x80000004) in data
    assert b"r0\0" in data
    assert b"spy\0" in data


def test_new_flowtable_with_wildcard_encodes_device_prefix() -> None:
    msg = flowtable.new_flowtable(1, "spy", "all", devices=["r0", "veth*"])
    msg.encode()
    again = FlowtableMessage(bytes(msg.data))
    again.decode()
    assert flowtable._decoded(again).devices == ("r0", "veth*")
    assert struct.pack("=HH", 4 + len(b"veth\0"), 2) + b"veth\0" in bytes(msg.data)


def test_flowtable_message_decodes_snoop_counters() -> None:
    msg = netlink.build_message(
        FlowtableMessage,
        0xA16,
        0,
        [
            ("NFTA_FLOWTABLE_TABLE", "spy"),
            ("NFTA_FLOWTABLE_NAME", "all"),
            ("NFTA_FLOWTABLE_FLAGS", 4),
            ("NFTA_FLOWTABLE_SNOOP_ENTRIES", 7),
            ("NFTA_FLOWTABLE_SNOOP_MISSED", 1 << 40),
        ],
        nfgen_family=1,
    )
    msg.encode()
    again = FlowtableMessage(bytes(msg.data))
    again.decode()
    seen = flowtable._decoded(again)
    assert (seen.table, seen.flags, seen.entries, seen.missed) == ("spy", 4, 7, 1 << 40)
