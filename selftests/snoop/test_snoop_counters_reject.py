# SPDX-License-Identifier: GPL-2.0-only
"""Requests may not contain the attributes of a snoop table's counters, which the kernel reports."""

import errno

import pytest
from pyroute2.netlink import nlmsg
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETFLOWTABLE

from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.net import flowtable, netlink
from fixtures.guest.net.nft_flowtable_attributes import FlowtableMessage
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns

COUNTERS = ["NFTA_FLOWTABLE_SNOOP_ENTRIES", "NFTA_FLOWTABLE_SNOOP_MISSED"]
NETNS, TABLE = "fm-reject", "spy"

each_counter = pytest.mark.parametrize("counter", COUNTERS, ids=["entries", "missed"])


def _with_counter(message: nlmsg, counter: str, value: int = 7) -> nlmsg:
    message["attrs"].append([counter, value])
    return message


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.8")
@pytest.mark.parametrize("flags", [0, flowtable.SNOOP], ids=["plain", "snoop"])
@pytest.mark.parametrize("value", [0, 7, (1 << 64) - 1], ids=["0", "7", "u64-max"])
@each_counter
def test_new_flowtable_with_counter_is_einval(
    make_netns: MakeNetns, counter: str, value: int, flags: int
) -> None:
    """A request that creates a flowtable with a counter gives EINVAL, and creates nothing."""
    namespace = make_netns(NETNS)
    request = flowtable.new_flowtable(flowtable.INET, TABLE, "all", flags=flags)
    messages = [flowtable.new_table(flowtable.INET, TABLE), _with_counter(request, counter, value)]
    with expect_errno(errno.EINVAL):
        flowtable.commit_batch(messages, namespace)
    assert flowtable.list_flowtables(namespace) == []
    flowtable.create_snoop_table(TABLE, "all", namespace, flags=flags)


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.8")
@each_counter
def test_flowtable_update_with_counter_is_einval(make_netns: MakeNetns, counter: str) -> None:
    """A request that updates a snoop table with a counter gives EINVAL, and changes nothing."""
    namespace = make_netns(NETNS)
    flowtable.create_snoop_table(TABLE, "all", namespace)
    before = flowtable.list_flowtables(namespace)
    request = flowtable.new_flowtable(
        flowtable.INET, TABLE, "all", flags=flowtable.SNOOP, exclusive=False
    )
    with expect_errno(errno.EINVAL):
        flowtable.commit_batch([_with_counter(request, counter)], namespace)
    assert flowtable.list_flowtables(namespace) == before


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.8")
@each_counter
def test_get_and_delete_with_counter_are_einval(make_netns: MakeNetns, counter: str) -> None:
    """Requests that get or delete a snoop table by a counter give EINVAL, and delete nothing."""
    namespace = make_netns(NETNS)
    flowtable.create_snoop_table(TABLE, "all", namespace)
    get = netlink.build_message(
        FlowtableMessage,
        NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETFLOWTABLE,
        0,
        [("NFTA_FLOWTABLE_TABLE", TABLE), ("NFTA_FLOWTABLE_NAME", "all")],
        nfgen_family=flowtable.INET,
    )
    with expect_errno(errno.EINVAL):
        netlink.dump(netlink.NETLINK_NETFILTER, _with_counter(get, counter), namespace, single=True)
    delete = flowtable.delete_flowtable(flowtable.INET, TABLE, "all")
    with expect_errno(errno.EINVAL):
        flowtable.commit_batch([_with_counter(delete, counter)], namespace)
    assert flowtable.snoop_counters(TABLE, "all", namespace) == (0, 0)
