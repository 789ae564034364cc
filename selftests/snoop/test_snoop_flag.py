# SPDX-License-Identifier: GPL-2.0-only
"""NFT_FLOWTABLE_SNOOP in nf_tables: accepted, dumped, unchangeable, refused with other flags."""

import errno

import pytest

from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable, nftables
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.1", "SN-1.5", "SN-1.6")
@pytest.mark.parametrize(
    "family", [flowtable.INET, flowtable.IPV4, flowtable.IPV6], ids=["inet", "ip", "ip6"]
)
def test_snoop_flag_is_accepted_and_dumped(make_netns: MakeNetns, family: int) -> None:
    """The flag is accepted in each family and dumped with zero counters."""
    ns = make_netns("fm-flag")
    flowtable.create_snoop_table("spy", "all", ns, family=family)

    snoop_table = flowtable.get_flowtable("spy", "all", ns, family)
    assert snoop_table.flags == flowtable.SNOOP
    assert (snoop_table.entries, snoop_table.missed) == (0, 0)
    assert flowtable.list_flowtables(ns) == [snoop_table]

    flowtable.drop_flowtable("spy", "all", ns, family)
    assert flowtable.list_flowtables(ns) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.2")
def test_snoop_flag_is_in_notifications(make_netns: MakeNetns) -> None:
    """Notifications of new flowtables carry the flag."""
    ns = make_netns("fm-flag")
    with flowtable.listen_new_flowtables(ns) as notifications:
        flowtable.create_snoop_table("spy", "all", ns)
        flowtable.create_snoop_table("spy", "plain", ns, flags=0)
        assert [(table.name, table.flags) for table in notifications()] == [
            ("all", flowtable.SNOOP),
            ("plain", 0),
        ]


@pytest.mark.clause("SN-1.7")
def test_snoop_counters_are_dumped_for_snoop_tables_only(router: Router) -> None:
    """A source table's dump has no snoop counters."""
    source = flowtable.get_flowtable("fw", "ft", router.namespace)
    assert source.flags & flowtable.SNOOP == 0
    assert sorted(source.devices) == ["r0", "r1"]
    assert (source.entries, source.missed) == (None, None)


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.3")
@pytest.mark.parametrize("bit", [1 << shift for shift in (3, 4, 15, 16, 31)], ids=hex)
def test_unknown_flowtable_flag_is_einval(make_netns: MakeNetns, bit: int) -> None:
    """Unknown flag bits give EINVAL, with the snoop flag and without."""
    ns = make_netns("fm-flag")
    for flags in (bit, bit | flowtable.SNOOP):
        with expect_errno(errno.EINVAL):
            flowtable.create_snoop_table("spy", "all", ns, flags=flags)
    assert flowtable.list_flowtables(ns) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.8")
@pytest.mark.parametrize(
    "attribute",
    ["NFTA_FLOWTABLE_SNOOP_ENTRIES", "NFTA_FLOWTABLE_SNOOP_MISSED"],
    ids=["entries", "missed"],
)
@pytest.mark.parametrize("flags", [0, flowtable.SNOOP], ids=["plain", "snoop"])
def test_request_with_snoop_counter_is_einval(
    make_netns: MakeNetns, attribute: str, flags: int
) -> None:
    """A request to create, update or delete a flowtable with a counter of the dump is EINVAL."""
    ns = make_netns("fm-flag")
    request = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=flags)
    request["attrs"].append((attribute, 0))
    with expect_errno(errno.EINVAL):
        flowtable.commit_batch([flowtable.new_table(flowtable.INET, "spy"), request], ns)
    assert flowtable.list_flowtables(ns) == []

    flowtable.create_snoop_table("spy", "all", ns, flags=flags)
    update = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=flags, exclusive=False)
    deletion = flowtable.delete_flowtable(flowtable.INET, "spy", "all")
    for message in (update, deletion):
        message["attrs"].append((attribute, 0))
        with expect_errno(errno.EINVAL):
            flowtable.commit_batch([message], ns)
    assert [table.flags for table in flowtable.list_flowtables(ns)] == [flags]


@pytest.mark.shared_vm
@pytest.mark.clause("SN-5.5")
@pytest.mark.parametrize(
    "other", [flowtable.HW_OFFLOAD, flowtable.COUNTER], ids=["hw-offload", "counter"]
)
def test_snoop_flag_with_other_flag_is_eopnotsupp(make_netns: MakeNetns, other: int) -> None:
    """The snoop flag together with another flag gives EOPNOTSUPP."""
    ns = make_netns("fm-flag")
    with expect_errno(errno.EOPNOTSUPP):
        flowtable.create_snoop_table("spy", "all", ns, flags=flowtable.SNOOP | other)
    assert flowtable.list_flowtables(ns) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.4")
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
def test_snoop_flag_change_is_eopnotsupp(make_netns: MakeNetns, before: int, after: int) -> None:
    """An update that changes a flowtable's flags gives EOPNOTSUPP and has no effect."""
    ns = make_netns("fm-flag")
    flowtable.create_snoop_table("spy", "all", ns, flags=before)
    change = flowtable.new_flowtable(flowtable.INET, "spy", "all", flags=after, exclusive=False)
    with expect_errno(errno.EOPNOTSUPP):
        flowtable.commit_batch([change], ns)
    assert flowtable.get_flowtable("spy", "all", ns).flags == before


@pytest.mark.clause("SN-5.4")
def test_flow_add_rule_to_snoop_table_is_refused(private_router: Router) -> None:
    """A rule that adds flows to a snoop table is refused, and the ruleset is unchanged."""
    flowtable.create_snoop_table("fw", "spy", private_router.namespace)
    before = nftables.list_ruleset(private_router.namespace)
    with pytest.raises(nftables.RulesetError, match="not supported"):
        nftables.run("add rule inet fw forward flow add @spy", private_router.namespace)
    assert nftables.list_ruleset(private_router.namespace) == before


@pytest.mark.clause("SN-3.1", "SN-1.5")
def test_snoop_table_update_does_not_publish_twice(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """Adding a device to a snoop table does not mirror its flows a second time."""
    ns = private_router.namespace
    flowtable.create_snoop_table("spy", "all", ns, devices=["r0"])
    open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    wait_for(
        "the snoop table to have the flow",
        lambda: flowtable.snoop_counters("spy", "all", ns) == (1, 0),
    )
    update = flowtable.new_flowtable(
        flowtable.INET, "spy", "all", flags=flowtable.SNOOP, devices=["r1"], exclusive=False
    )
    flowtable.commit_batch([update], ns)
    assert sorted(flowtable.get_flowtable("spy", "all", ns).devices) == ["r0", "r1"]

    open_private_connection(IPPROTO_UDP, 6, server_port=7002).wait_offloaded()
    assert flowtable.snoop_counters("spy", "all", ns) == (2, 0)
    flowtable.drop_table("spy", ns)
    flowtable.create_snoop_table("spy", "all", ns)
    # A work item publishes the table after the commit.
    wait_for(
        "the new snoop table to have both flows",
        lambda: flowtable.snoop_counters("spy", "all", ns) == (2, 0),
    )
