# SPDX-License-Identifier: GPL-2.0-only
"""rtnetlink messages: encoding without a kernel."""

from fixtures.guest.net import rtnetlink


def test_link_messages_encode() -> None:
    for msg in (
        rtnetlink.add_vlan("r0.7", 121, 21, 7),
        rtnetlink.set_up(1),
        rtnetlink.set_down(1),
        rtnetlink.add_address(21, "2001:db8::1", 64),
        rtnetlink.add_permanent_neigh(21, "192.0.2.2", "02:00:00:00:00:0b"),
        rtnetlink.add_default_route("192.0.2.1"),
        rtnetlink.add_blackhole_route("198.51.100.0", 24),
    ):
        msg.encode()
        assert len(msg.data) >= 32
