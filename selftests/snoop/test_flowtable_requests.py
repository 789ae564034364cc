# SPDX-License-Identifier: GPL-2.0-only
"""Requests for snoop tables: refused ones leave nothing, accepted ones change what they name."""

import errno

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable, netns
from fixtures.guest.net.flowtable import INET, SNOOP
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

_MORE_THAN_VIEWS = 70
"""Attempts; more than the 64 views for which a namespace has room."""


@pytest.mark.clause("SN-8.3", "SN-13.2")
@pytest.mark.parametrize("kind", ["device-twice", "unknown-hook", "taken-name", "second-message"])
def test_refused_snoop_tables_take_no_place_of_a_view(
    make_netns: MakeNetns, make_flowmap: MakeFlowmap, kind: str
) -> None:
    """A snoop table whose creation is refused, at whatever step, takes none of the 64 places."""
    ns = make_netns("fm-refused")
    flowtable.create_snoop_table("plain", "ft", ns, flags=0)
    messages = {
        # Both of these are found when the table has been initialised.
        "device-twice": [
            flowtable.new_flowtable(INET, "plain", "spy", flags=SNOOP, devices=["lo", "lo"])
        ],
        "unknown-hook": [flowtable.new_flowtable(INET, "plain", "spy", flags=SNOOP, hook=7)],
        "taken-name": [flowtable.new_flowtable(INET, "plain", "ft", flags=SNOOP)],
        "second-message": [
            flowtable.new_flowtable(INET, "plain", "spy", flags=SNOOP),
            flowtable.new_flowtable(INET, "plain", "ft", flags=0),
        ],
    }[kind]
    expected = errno.EOPNOTSUPP if kind == "unknown-hook" else errno.EEXIST
    for _ in range(_MORE_THAN_VIEWS):
        with expect_errno(expected):
            flowtable.commit_batch(messages, ns)
    assert [table.name for table in flowtable.list_flowtables(ns)] == ["ft"]

    # The views of batches that were rolled back are removed by a work item.
    wait_for(
        "a snoop table to have a place",
        lambda: flowtable.create_snoop_table_if_room("spy", "all", ns),
    )
    assert list(bpf.iterate_keys(make_flowmap(ns))) == []


@pytest.mark.clause("SN-2.4", "SN-9.1")
@pytest.mark.parametrize("sender", ["elsewhere", "initial"])
def test_snoop_table_belongs_to_netns_of_the_socket(
    private_router: Router,
    open_private_connection: OpenConnection,
    make_netns: MakeNetns,
    sender: str,
) -> None:
    """A snoop table mirrors the netns that it is created in, whichever its creator is in.

    The socket is of the router's netns, and the process has gone to another one.
    """
    ns = private_router.namespace
    open_private_connection(IPPROTO_UDP, 4, server_port=7001).wait_offloaded()
    where = make_netns("fm-else") if sender == "elsewhere" else None
    with netns.entered(where):
        # transact() creates the socket in the named netns and sends from the current one.
        flowtable.create_snoop_table("spy", "all", ns)
    wait_for(
        "the snoop table to have the router's flow",
        lambda: flowtable.snoop_counters("spy", "all", ns) == (1, 0),
    )
    open_private_connection(IPPROTO_UDP, 6, server_port=7002).wait_offloaded()
    assert flowtable.snoop_counters("spy", "all", ns) == (2, 0)


@pytest.mark.clause("SN-1.1", "SN-8.2")
def test_snoop_table_update_without_flags_keeps_the_flag(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """An update without flags adds a device: the table stays a snoop table, and is deletable."""
    ns = private_router.namespace
    flowtable.create_snoop_table("spy", "all", ns, devices=["r0"])
    update = flowtable.new_flowtable(INET, "spy", "all", devices=["r1"], exclusive=False)
    flowtable.commit_batch([update], ns)
    seen = flowtable.get_flowtable("spy", "all", ns)
    assert (seen.flags, sorted(seen.devices)) == (SNOOP, ["r0", "r1"])
    open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    wait_for(
        "the snoop table to have the flow",
        lambda: flowtable.snoop_counters("spy", "all", ns) == (1, 0),
    )
    flowtable.drop_flowtable("spy", "all", ns)
    flowtable.create_snoop_table("spy", "all", ns)


@pytest.mark.shared_vm
@pytest.mark.clause("SN-1.4")
def test_hw_offload_flag_change_is_eopnotsupp(make_netns: MakeNetns) -> None:
    """The flag for hardware offload of an ordinary flow table can still not be changed."""
    ns = make_netns("fm-flag")
    flowtable.create_snoop_table("plain", "ft", ns, flags=0)
    for flags in (flowtable.HW_OFFLOAD, flowtable.HW_OFFLOAD | SNOOP):
        change = flowtable.new_flowtable(INET, "plain", "ft", flags=flags, exclusive=False)
        with expect_errno(errno.EOPNOTSUPP):
            flowtable.commit_batch([change], ns)
    assert flowtable.get_flowtable("plain", "ft", ns).flags == 0


@pytest.mark.shared_vm
@pytest.mark.clause("SN-5.1")
@pytest.mark.parametrize("spies", ["before", "after", "around"])
def test_second_ordinary_flowtable_on_device_is_eexist_beside_snoop_tables(
    make_netns: MakeNetns, spies: str
) -> None:
    """Snoop tables before or behind it do not hide the ordinary flow table that has a device."""
    ns = make_netns("fm-dev")
    flowtable.commit_batch([flowtable.new_table(INET, "t")], ns)

    def create(name: str, flags: int) -> None:
        request = flowtable.new_flowtable(INET, "t", name, flags=flags, devices=["lo"])
        flowtable.commit_batch([request], ns)

    if spies in ("before", "around"):
        create("early", SNOOP)
    create("first", 0)
    if spies in ("after", "around"):
        create("late", SNOOP)
    with expect_errno(errno.EEXIST):
        create("second", 0)
    flowtable.drop_flowtable("t", "first", ns)
    create("second", 0)
