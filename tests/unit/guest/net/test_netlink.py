# SPDX-License-Identifier: GPL-2.0-only
"""Netlink messages, and errors: errno and extended ACK."""

import errno
import struct

import pytest

from fixtures.guest.net import flowtable, netlink
from fixtures.guest.net.netlink import NetlinkError


def test_netlink_error_has_errno_and_extack_text() -> None:
    words = b"no such device\0\0"
    attribute = struct.pack("=HH", 4 + len(words), 1) + words
    inner = struct.pack("=IHHII", 16, 16, 0, 1, 0)
    body = struct.pack("=i", -errno.ENODEV) + inner + attribute
    data = struct.pack("=IHHII", 16 + len(body), 2, 0x200, 1, 0) + body
    with pytest.raises(NetlinkError, match=r"link: No such device \(no such device\)") as caught:
        netlink._raise_on_error(0x200, data, "link")
    assert caught.value.errno == errno.ENODEV


def test_message_that_is_sent_again_has_the_same_octets() -> None:
    message = flowtable.new_flowtable(1, "table", "ft", devices=["lo"])
    assert netlink._encode(message, 1, 0) == netlink._encode(message, 1, 0)
