# SPDX-License-Identifier: GPL-2.0-only
"""Conntrack tuples."""

from fixtures.guest.net.conntrack import Tuple


def test_tuple_reversed_swaps_source_and_destination() -> None:
    side = Tuple(6, "192.0.2.2", "198.51.100.2", 1024, 80)
    assert side.reversed() == Tuple(6, "198.51.100.2", "192.0.2.2", 80, 1024)
    assert side.reversed().reversed() == side
