# SPDX-License-Identifier: GPL-2.0-only
"""NFT_FLOWTABLE_SNOOP in nf_tables: accepted, dumped, unchangeable, refused with other flags."""

import errno

import pytest

from fixtures.guest.core.expect_errno import refused
from fixtures.guest.net import flowtable, nftables
from fixtures.guest.pytest_plugin.plugin_api import Connect, Namespaces
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
@pytest.mark.parametrize(
    "family", [flowtable.INET, flowtable.IPV4, flowtable.IPV6], ids=["inet", "ip", "ip6"]
)
def test_flag_is_accepted_and_dumped(namespace: Namespaces, family: int) -> None:
    """The flag is accepted in each family and dumped with zero counters."""
    ns = namespace("fm-flag")
    flowtable.create_snoop("spy", "all", ns, family=family)

    snoop_table = flowtable.find("spy", "all", ns, family)
    assert snoop_table.flags == flowtable.SNOOP
    assert (snoop_table.entries, snoop_table.missed) == (0, 0)
    assert flowtable.flowtables(ns) == [snoop_table]

    flowtable.drop("spy", "all", ns, family)
    assert flowtable.flowtables(ns) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
def test_flag_is_shown_in_notifications(namespace: Namespaces) -> None:
    """Notifications of new flowtables carry the flag."""
    ns = namespace("fm-flag")
    with flowtable.notified(ns) as notifications:
        flowtable.create_snoop("spy", "all", ns)
        flowtable.create_snoop("spy", "plain", ns, flags=0)
        assert [(table.name, table.flags) for table in notifications()] == [
            ("all", flowtable.SNOOP),
            ("plain", 0),
        ]


@pytest.mark.clause("SN-1")
def test_counters_are_shown_of_snoop_tables_only(router: Router) -> None:
    """A source table's dump has no snoop counters."""
    source = flowtable.find("fw", "ft", router.namespace)
    assert source.flags & flowtable.SNOOP == 0
    assert sorted(source.devices) == ["r0", "r1"]
    assert (source.entries, source.missed) == (None, None)


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
@pytest.mark.parametrize("bit", [1 << shift for shift in (3, 4, 15, 16, 31)], ids=hex)
def test_unknown_bits_are_refused(namespace: Namespaces, bit: int) -> None:
    """Unknown flag bits give EINVAL, with the snoop flag and without."""
    ns = namespace("fm-flag")
    for flags in (bit, bit | flowtable.SNOOP):
        with refused(errno.EINVAL):
            flowtable.create_snoop("spy", "all", ns, flags=flags)
    assert flowtable.flowtables(ns) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-5")
@pytest.mark.parametrize(
    "other", [flowtable.HW_OFFLOAD, flowtable.COUNTER], ids=["hw-offload", "counter"]
)
def test_snoop_goes_with_no_other_flag(namespace: Namespaces, other: int) -> None:
    """The snoop flag together with another flag gives EOPNOTSUPP."""
    ns = namespace("fm-flag")
    with refused(errno.EOPNOTSUPP):
        flowtable.create_snoop("spy", "all", ns, flags=flowtable.SNOOP | other)
    assert flowtable.flowtables(ns) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (flowtable.SNOOP, 0),
        (0, flowtable.SNOOP),
        (flowtable.SNOOP, flowtable.COUNTER),
        (flowtable.SNOOP, flowtable.SNOOP | flowtable.COUNTER),
    ],
    ids=["snoop-to-none", "none-to-snoop", "snoop-to-counter", "snoop-to-snoop-and-counter"],
)
def test_flag_cannot_change(namespace: Namespaces, before: int, after: int) -> None:
    """An update that changes a flowtable's flags gives EOPNOTSUPP and has no effect."""
    ns = namespace("fm-flag")
    flowtable.create_snoop("spy", "all", ns, flags=before)
    change = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=after, exclusive=False)
    with refused(errno.EOPNOTSUPP):
        flowtable.commit([change], ns)
    assert flowtable.find("spy", "all", ns).flags == before


@pytest.mark.clause("SN-5")
def test_rule_cannot_add_flows_to_a_snoop_table(own_router: Router) -> None:
    """A rule that adds flows to a snoop table is refused, and the ruleset is unchanged."""
    flowtable.create_snoop("fw", "spy", own_router.namespace)
    before = nftables.listing(own_router.namespace)
    with pytest.raises(nftables.RulesetError, match="not supported"):
        nftables.run("add rule inet fw forward flow add @spy", own_router.namespace)
    assert nftables.listing(own_router.namespace) == before


@pytest.mark.clause("SN-1", "SN-3")
def test_update_of_a_snoop_table_publishes_it_no_second_time(
    own_router: Router, own_connection: Connect
) -> None:
    """Adding a device to a snoop table does not mirror its flows a second time."""
    ns = own_router.namespace
    flowtable.create_snoop("spy", "all", ns, devices=["r0"])
    own_connection(UDP_PROTOCOL, 4, server_port=7001).offloaded()
    update = flowtable.new_flowtable(
        flowtable.INET, "spy", "all", flags=flowtable.SNOOP, devices=["r1"], exclusive=False
    )
    flowtable.commit([update], ns)
    assert sorted(flowtable.find("spy", "all", ns).devices) == ["r0", "r1"]

    own_connection(UDP_PROTOCOL, 6, server_port=7002).offloaded()
    snoop_table = flowtable.find("spy", "all", ns)
    assert (snoop_table.entries, snoop_table.missed) == (2, 0)
    flowtable.drop_table("spy", ns)
    flowtable.create_snoop("spy", "all", ns)
    assert flowtable.find("spy", "all", ns).entries == 2
