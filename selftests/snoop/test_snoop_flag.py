# SPDX-License-Identifier: GPL-2.0-only
"""The SNOOP flag in nf_tables: accepted, shown, kept, and refused where it makes no sense."""

import errno

import pytest

from fixtures.guest.core.expect_errno import refused
from fixtures.guest.net import flowtable, nftables
from fixtures.guest.pytest_plugin.fixtures import Connect, Namespaces
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
@pytest.mark.parametrize(
    "family", [flowtable.INET, flowtable.IPV4, flowtable.IPV6], ids=["inet", "ip", "ip6"]
)
def test_flag_is_accepted_and_dumped(namespace: Namespaces, family: int) -> None:
    inside = namespace("fm-flag")
    flowtable.create_snoop("spy", "all", inside, family=family)

    seen = flowtable.find("spy", "all", inside, family)
    assert seen.flags == flowtable.SNOOP
    assert (seen.entries, seen.missed) == (0, 0)
    assert flowtable.flowtables(inside) == [seen]

    flowtable.drop("spy", "all", inside, family)
    assert flowtable.flowtables(inside) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
def test_flag_is_shown_in_notifications(namespace: Namespaces) -> None:
    inside = namespace("fm-flag")
    with flowtable.notified(inside) as heard:
        flowtable.create_snoop("spy", "all", inside)
        flowtable.create_snoop("spy", "plain", inside, flags=0)
        assert [(table.name, table.flags) for table in heard()] == [
            ("all", flowtable.SNOOP),
            ("plain", 0),
        ]


@pytest.mark.clause("SN-1")
def test_counters_are_shown_of_snoop_tables_only(router: Router) -> None:
    source = flowtable.find("fw", "ft", router.namespace)
    assert source.flags & flowtable.SNOOP == 0
    assert sorted(source.devices) == ["r0", "r1"]
    assert (source.entries, source.missed) == (None, None)


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1")
@pytest.mark.parametrize("bit", [1 << place for place in (3, 4, 15, 16, 31)], ids=hex)
def test_unknown_bits_are_refused(namespace: Namespaces, bit: int) -> None:
    inside = namespace("fm-flag")
    for flags in (bit, bit | flowtable.SNOOP):
        with refused(errno.EINVAL):
            flowtable.create_snoop("spy", "all", inside, flags=flags)
    assert flowtable.flowtables(inside) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-5")
@pytest.mark.parametrize(
    "other", [flowtable.HW_OFFLOAD, flowtable.COUNTER], ids=["hardware", "counter"]
)
def test_snoop_goes_with_no_other_flag(namespace: Namespaces, other: int) -> None:
    inside = namespace("fm-flag")
    with refused(errno.EOPNOTSUPP):
        flowtable.create_snoop("spy", "all", inside, flags=flowtable.SNOOP | other)
    assert flowtable.flowtables(inside) == []


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
    ids=["off", "on", "other", "more"],
)
def test_flag_cannot_change(namespace: Namespaces, before: int, after: int) -> None:
    inside = namespace("fm-flag")
    flowtable.create_snoop("spy", "all", inside, flags=before)
    change = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=after, exclusive=False)
    with refused(errno.EOPNOTSUPP):
        flowtable.commit([change], inside)
    assert flowtable.find("spy", "all", inside).flags == before


@pytest.mark.clause("SN-5")
def test_rule_cannot_add_flows_to_a_snoop_table(own_router: Router) -> None:
    flowtable.create_snoop("fw", "spy", own_router.namespace)
    before = nftables.listing(own_router.namespace)
    with pytest.raises(nftables.RulesetError, match="not supported"):
        nftables.run("add rule inet fw forward flow add @spy", own_router.namespace)
    assert nftables.listing(own_router.namespace) == before


@pytest.mark.clause("SN-1", "SN-3")
def test_update_of_a_snoop_table_publishes_it_no_second_time(
    own_router: Router, own_connection: Connect
) -> None:
    inside = own_router.namespace
    flowtable.create_snoop("spy", "all", inside, devices=["r0"])
    own_connection(UDP_PROTOCOL, 4, server_port=7001).offloaded()
    more = flowtable.new_flowtable(
        flowtable.INET, "spy", "all", flags=flowtable.SNOOP, devices=["r1"], exclusive=False
    )
    flowtable.commit([more], inside)
    assert sorted(flowtable.find("spy", "all", inside).devices) == ["r0", "r1"]

    own_connection(UDP_PROTOCOL, 6, server_port=7002).offloaded()
    seen = flowtable.find("spy", "all", inside)
    assert (seen.entries, seen.missed) == (2, 0)
    flowtable.drop_table("spy", inside)
    flowtable.create_snoop("spy", "all", inside)
    assert flowtable.find("spy", "all", inside).entries == 2
