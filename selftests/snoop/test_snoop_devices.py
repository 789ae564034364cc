# SPDX-License-Identifier: GPL-2.0-only
"""Snoop tables take no device away: ordinary flowtables of the same devices come in any order."""

import errno
from itertools import permutations

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import flowtable, nftables
from fixtures.guest.net.flowtable import INET, IPV4, IPV6, SNOOP
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection, router_config_id
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP

DEVICES = ("r0", "r1")
_FAMILY_NAME = {INET: "inet", IPV4: "ip", IPV6: "ip6"}

without_source_table = pytest.mark.parametrize(
    "private_router", [RouterConfig(tables="none")], ids=router_config_id, indirect=True
)


def _add_flow_rule(family: int, table: str, name: str, namespace: str) -> None:
    nftables.run(
        f"""
        table {_FAMILY_NAME[family]} {table} {{
            chain forward {{
                type filter hook forward priority 0;
                meta l4proto {{ tcp, udp }} ct state established flow add @{name}
            }}
        }}
        """,
        namespace,
    )


@pytest.mark.clause("SN-5.1", "SN-9.1")
@without_source_table
@pytest.mark.parametrize("family", _FAMILY_NAME, ids=_FAMILY_NAME.values())
def test_snoop_and_ordinary_flowtables_share_devices_in_any_order(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    family: int,
) -> None:
    """Two snoop tables and an ordinary flowtable of one nft table list the same devices.

    They may be created in any order, by one batch or by several, and flows are offloaded to the
    ordinary one.  It keeps working when the snoop tables are deleted.
    """
    namespace = private_router.namespace
    flags = {"spy": SNOOP, "other-spy": SNOOP, "ft": 0}
    # The last one, with which the test goes on, begins with the snoop tables.
    for number, order in enumerate(reversed(list(permutations(flags)))):
        messages = [flowtable.new_table(family, "shared")]
        messages += [
            flowtable.new_flowtable(family, "shared", name, flags=flags[name], devices=DEVICES)
            for name in order
        ]
        for part in [[message] for message in messages] if number % 2 else [messages]:
            flowtable.commit_batch(part, namespace)
        dumped = {table.name: table for table in flowtable.list_flowtables(namespace)}
        assert {name: dumped[name].flags for name in flags} == flags, order
        assert all(sorted(table.devices) == list(DEVICES) for table in dumped.values()), order
        if order != tuple(flags):
            flowtable.drop_table("shared", namespace, family)

    _add_flow_rule(family, "shared", "ft", namespace)
    version = 6 if family == IPV6 else 4
    flow = open_private_connection(IPPROTO_UDP, version, server_port=7001).wait_offloaded()
    assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]
    for name in ("spy", "other-spy"):
        wait_for(
            f"the flow to be in {name}",
            lambda: flowtable.get_flowtable("shared", name, namespace, family).entries == 1,  # noqa: B023
        )
        flowtable.drop_flowtable("shared", name, namespace, family)
    flow = open_private_connection(IPPROTO_TCP, version, server_port=7002).wait_offloaded()
    assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]
    assert len(list(bpf.iterate_keys(private_flowmap))) == 4


@pytest.mark.clause("SN-5.1")
@without_source_table
@pytest.mark.parametrize("last", ["snoop", "ordinary"])
def test_devices_added_by_update_do_not_conflict_with_snoop_table(
    private_router: Router, open_private_connection: OpenConnection, last: str
) -> None:
    """A device that a snoop table has can be added to an ordinary flowtable, and the reverse."""
    namespace = private_router.namespace
    flowtable.create_snoop_table("shared", "spy", namespace, devices=("r0",))
    flowtable.create_snoop_table("shared", "ft", namespace, flags=0, devices=("r1",))
    updates = {
        "snoop": flowtable.new_flowtable(
            INET, "shared", "spy", flags=SNOOP, devices=("r1",), exclusive=False
        ),
        "ordinary": flowtable.new_flowtable(
            INET, "shared", "ft", flags=0, devices=("r0",), exclusive=False
        ),
    }
    for name in sorted(updates, key=lambda name: name == last):
        flowtable.commit_batch([updates[name]], namespace)
    for name in ("spy", "ft"):
        assert sorted(flowtable.get_flowtable("shared", name, namespace).devices) == list(DEVICES)
    # Two ordinary flowtables of one nft table may still not have the same device.
    with expect_errno(errno.EEXIST):
        second = flowtable.new_flowtable(INET, "shared", "second", flags=0, devices=("r0",))
        flowtable.commit_batch([second], namespace)
    _add_flow_rule(INET, "shared", "ft", namespace)
    open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    wait_for(
        "the snoop table to have the flow",
        lambda: flowtable.snoop_counters("shared", "spy", namespace) == (1, 0),
    )


RULES = (
    "meta l4proto { tcp, udp } flow add @spy",
    "ip protocol udp ct state established counter flow add @spy accept",
    "meta nfproto ipv6 flow add @spy",
)
COMMANDS = ("add rule inet {table} {chain} {rule}", "insert rule inet {table} {chain} {rule}")


@pytest.mark.clause("SN-5.4")
@pytest.mark.parametrize("devices", [(), DEVICES], ids=["without-devices", "with-devices"])
def test_snoop_table_after_refused_rules_is_unused_and_deletable(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    devices: tuple[str, ...],
) -> None:
    """After rules that name it were refused, a snoop table has all flows and can be deleted.

    Rules are refused alone, behind a valid rule, in a batch that creates the chain, and as
    replacement of a valid rule.
    """
    namespace = private_router.namespace
    flowtable.create_snoop_table("fw", "spy", namespace, devices=devices)
    flowtable.create_snoop_table("fw", "other-spy", namespace, devices=devices)
    before = nftables.list_ruleset(namespace)
    commands = [
        command.format(table="fw", chain="forward", rule=rule)
        for command in COMMANDS
        for rule in RULES
    ]
    commands += [
        f"add rule inet fw forward accept\nadd rule inet fw forward {RULES[0]}",
        "add chain inet fw later { type filter hook forward priority 5; }\n"
        f"add rule inet fw later {RULES[0]}",
        "add table inet late\nadd chain inet late c\nadd rule inet late c accept\n"
        f"add rule inet fw forward {RULES[1]}",
    ]
    for command in commands:
        with pytest.raises(nftables.RulesetError, match="not supported"):
            nftables.run(command, namespace)
        assert nftables.list_ruleset(namespace) == before, command
        used = {table.name: table.use for table in flowtable.list_flowtables(namespace)}
        assert used == {"ft": 1, "spy": 0, "other-spy": 0}, command

    flow = open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    for name in ("spy", "other-spy"):
        wait_for(
            f"{name} to have the flow",
            lambda: flowtable.snoop_counters("fw", name, namespace) == (1, 0),  # noqa: B023
        )
        flowtable.drop_flowtable("fw", name, namespace)
    assert [table.name for table in flowtable.list_flowtables(namespace)] == ["ft"]
    assert [bpf.lookup(private_flowmap, key).dir for key in flow.keys] == [0, 1]
    # The name is free, for an ordinary flowtable too, and such a table takes flows.
    flowtable.create_snoop_table("fw", "spy", namespace, flags=0)
    nftables.run(f"add rule inet fw forward {RULES[0]}", namespace)
    assert flowtable.get_flowtable("fw", "spy", namespace).use == 1


@pytest.mark.clause("SN-1.4", "SN-5.5")
def test_snoop_table_after_refused_updates_is_deletable(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """A snoop table whose updates were refused is as it was: flags, devices, flows, deletion."""
    namespace = private_router.namespace
    flowtable.create_snoop_table("spy", "all", namespace, devices=("r0",))
    open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    wait_for(
        "the snoop table to have the flow",
        lambda: flowtable.snoop_counters("spy", "all", namespace) == (1, 0),
    )
    before = flowtable.get_flowtable("spy", "all", namespace)
    for flags in (0, flowtable.HW_OFFLOAD, SNOOP | flowtable.HW_OFFLOAD, SNOOP | flowtable.COUNTER):
        update = flowtable.new_flowtable(
            INET, "spy", "all", flags=flags, devices=("r1",), exclusive=False
        )
        with expect_errno(errno.EOPNOTSUPP):
            flowtable.commit_batch([update], namespace)
        assert flowtable.get_flowtable("spy", "all", namespace) == before, hex(flags)
    # A valid message that is in one batch with a refused one has no effect either.
    addition = flowtable.new_flowtable(
        INET, "spy", "all", flags=SNOOP, devices=("r1",), exclusive=False
    )
    deletion = flowtable.delete_flowtable(INET, "spy", "all")
    for valid in (addition, deletion):
        # A message cannot be encoded twice.
        refused = flowtable.new_flowtable(INET, "spy", "bad", flags=SNOOP | flowtable.COUNTER)
        with expect_errno(errno.EOPNOTSUPP):
            flowtable.commit_batch([valid, refused], namespace)
        assert flowtable.get_flowtable("spy", "all", namespace) == before
    flowtable.drop_flowtable("spy", "all", namespace)
    flowtable.create_snoop_table("spy", "all", namespace, flags=0, devices=("r0",))
