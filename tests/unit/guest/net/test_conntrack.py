# SPDX-License-Identifier: GPL-2.0-only
"""Conntrack tuples, and zones of decoded entries."""

from typing import Any

import pytest

from fixtures.guest.net import conntrack, netlink
from fixtures.guest.net.conntrack import ConntrackMessage, Tuple

SIDE = Tuple(6, "192.0.2.2", "198.51.100.2", 1024, 80)


def test_tuple_reversed_swaps_source_and_destination() -> None:
    assert SIDE.reversed() == Tuple(6, "198.51.100.2", "192.0.2.2", 80, 1024)
    assert SIDE.reversed().reversed() == SIDE


def _tuple_attribute(side: Tuple, zone: int) -> dict[str, Any]:
    built = conntrack._to_netlink(side)
    if zone:
        built["attrs"].append(["CTA_TUPLE_ZONE", zone])
    return built


@pytest.mark.parametrize(
    ("both", "original", "reply", "zones"),
    [(0, 0, 0, (0, 0)), (7, 0, 0, (7, 7)), (0, 7, 0, (7, 0)), (0, 0, 7, (0, 7))],
    ids=["none", "both", "original", "reply"],
)
def test_entry_has_zone_of_each_direction(
    both: int, original: int, reply: int, zones: tuple[int, int]
) -> None:
    attrs = [
        ("CTA_TUPLE_ORIG", _tuple_attribute(SIDE, original)),
        ("CTA_TUPLE_REPLY", _tuple_attribute(SIDE.reversed(), reply)),
        ("CTA_STATUS", conntrack.IPS_OFFLOAD),
        *([("CTA_ZONE", both)] if both else []),
    ]
    msg = netlink.build_message(ConntrackMessage, 0x100, 0, attrs, nfgen_family=2)
    msg.encode()
    again = ConntrackMessage(bytes(msg.data))
    again.decode()
    entry = conntrack._decoded(again)
    assert (entry.original, entry.zone, entry.zones) == (SIDE, both, zones)
