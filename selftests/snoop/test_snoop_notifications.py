# SPDX-License-Identifier: GPL-2.0-only
"""Flags of flowtables: every unknown bit is refused, and notifications show the snoop flag."""

import errno
from contextlib import ExitStack

import pytest

from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.net import flowtable, netlink, nftables, rtnetlink
from fixtures.guest.net.flowtable import INET, IPV4, IPV6, KNOWN_FLAGS, SNOOP
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns

UNKNOWN_BITS = [1 << shift for shift in range(32) if not KNOWN_FLAGS & 1 << shift]
FAMILIES = (INET, IPV4, IPV6)


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.3")
def test_each_unknown_flag_is_einval(make_netns: MakeNetns) -> None:
    """Each unknown bit is EINVAL with and without the snoop flag, at creation and at update."""
    namespace = make_netns("fm-bits")
    for family in FAMILIES:
        flowtable.create_snoop_table("spy", "snoop", namespace, family=family)
        flowtable.create_snoop_table("spy", "plain", namespace, family=family, flags=0)
    before = flowtable.list_flowtables(namespace)
    assert len(UNKNOWN_BITS) == 29
    for number, bit in enumerate([*UNKNOWN_BITS, sum(UNKNOWN_BITS)]):
        family = FAMILIES[number % 3]
        for flags in (bit, bit | SNOOP):
            for name, exclusive in (("new", True), ("snoop", False), ("plain", False)):
                request = flowtable.new_flowtable(
                    family, "spy", name, flags=flags, exclusive=exclusive
                )
                with expect_errno(errno.EINVAL):
                    flowtable.commit_batch([request], namespace)
    assert flowtable.list_flowtables(namespace) == before


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.2")
@pytest.mark.parametrize("family", FAMILIES, ids=["inet", "ip", "ip6"])
def test_notifications_show_snoop_flag_and_names(
    make_netns: MakeNetns, cleanup: ExitStack, family: int
) -> None:
    """Creation, update and deletion are notified, with the flag wherever flags are notified.

    An ordinary flowtable in the same table has the same notifications without the flag.
    """
    namespace = make_netns("fm-events")
    devices = {"d0": 40, "d1": 41}
    additions = [rtnetlink.add_dummy(name, index) for name, index in devices.items()]
    netlink.transact(netlink.NETLINK_ROUTE, additions, namespace)
    new = cleanup.enter_context(flowtable.listen_new_flowtables(namespace))
    deleted = cleanup.enter_context(flowtable.listen_deleted_flowtables(namespace))

    for name, flags in (("spy", SNOOP), ("plain", 0)):
        flowtable.create_snoop_table(
            "events", name, namespace, family=family, flags=flags, devices=("d0",)
        )
        (event,) = new()
        assert (event.family, event.table, event.name) == (family, "events", name)
        assert (event.flags, event.devices, event.use) == (flags, ("d0",), 0)

        update = flowtable.new_flowtable(
            family, "events", name, flags=flags, devices=("d1",), exclusive=False
        )
        flowtable.commit_batch([update], namespace)
        (event,) = new()
        # The notification of an update has the devices that it adds.
        assert (event.name, event.flags, event.devices) == (name, flags, ("d1",))

        removal = flowtable.new_flowtable(family, "events", name, flags=flags, devices=("d1",))
        flowtable.commit_batch([flowtable.as_deletion(removal)], namespace)
        (event,) = deleted()
        assert (event.name, event.flags, event.devices) == (name, flags, ("d1",))
        assert flowtable.get_flowtable("events", name, namespace, family).devices == ("d0",)
        assert flowtable.get_flowtable("events", name, namespace, family).flags == flags

        flowtable.drop_flowtable("events", name, namespace, family)
        (event,) = deleted()
        assert (event.family, event.table, event.name) == (family, "events", name)
        assert (new(), deleted()) == ([], [])


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.2")
def test_deletion_of_table_notifies_its_snoop_tables(
    make_netns: MakeNetns, cleanup: ExitStack
) -> None:
    """Each snoop table that goes with its nft table, or with the ruleset, is notified once."""
    namespace = make_netns("fm-events")
    deleted = cleanup.enter_context(flowtable.listen_deleted_flowtables(namespace))
    for remove in (
        lambda: flowtable.drop_table("events", namespace),
        lambda: nftables.run("flush ruleset", namespace),
    ):
        for name, flags in (("spy", SNOOP), ("plain", 0), ("other-spy", SNOOP)):
            flowtable.create_snoop_table("events", name, namespace, flags=flags)
        remove()
        assert sorted(event.name for event in deleted()) == ["other-spy", "plain", "spy"]
        assert flowtable.list_flowtables(namespace) == []


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.2")
def test_refused_flowtable_is_not_notified(make_netns: MakeNetns, cleanup: ExitStack) -> None:
    """A batch that is refused notifies nothing of the snoop tables in it."""
    namespace = make_netns("fm-events")
    new = cleanup.enter_context(flowtable.listen_new_flowtables(namespace))
    deleted = cleanup.enter_context(flowtable.listen_deleted_flowtables(namespace))
    refused = SNOOP | flowtable.COUNTER
    with expect_errno(errno.EOPNOTSUPP):
        flowtable.commit_batch(
            [
                flowtable.new_table(INET, "events"),
                flowtable.new_flowtable(INET, "events", "spy", flags=SNOOP),
                flowtable.new_flowtable(INET, "events", "bad", flags=refused),
            ],
            namespace,
        )
    assert (new(), deleted()) == ([], [])
