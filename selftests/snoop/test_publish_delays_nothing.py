# SPDX-License-Identifier: GPL-2.0-only
"""Publication of a snoop table or flow map delays no commit, RTNL or other namespace (SN-12).

Publication waits for grace periods.  The tests keep one from ending, with a task that is held in an
RCU read-side critical section, or hold the task that publishes.  Whatever has to go on meanwhile is
called in the test itself.  If it waits, the held task continues by itself after a timeout, and the
test fails because it has not released the task.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from pyroute2.netlink import nlmsg

from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import ftrace, modules
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import flowtable, netlink, netns, nftables, rtnetlink
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Connection

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu", "flowtable_modules")

PUBLICATION_STEP = "synchronize_rcu"
"""A function that the work item of a publication calls in process context, and may sleep in."""

_READER = "array_map_lookup_elem"
"""Called by bpf(2) in an RCU read-side critical section."""
_LONGEST_HOLD = 15.0
_INDEX = 50
_BATCH_SIZE = 30

Action = Callable[[str], None]


@contextmanager
def _grace_periods_stopped() -> Iterator[None]:
    """Hold a task in an RCU read-side critical section during a block.

    Raises:
        AssertionError: the block took so long that the task continued by itself: it waited.
    """
    with bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_ARRAY, 4, 4, 1)) as array:
        reader = child_process.GatedChild(lambda: bpf.lookup_raw(array, bytes(4), 4), HELD_CPU)
        with stop_at(_READER, tgid=reader.pid, timeout=_LONGEST_HOLD) as held:
            reader.start()
            held.wait_until_held(busy_poll=True)
            yield
            held.release()
        reader.join()


@contextmanager
def _publication_held(namespace: str) -> Iterator[None]:
    """Create a snoop table in a netns, and hold its publication during a block.

    Raises:
        AssertionError: the block took so long that the publication continued: it waited.
    """
    with stop_at(PUBLICATION_STEP, comm="kworker", timeout=_LONGEST_HOLD) as held:
        flowtable.create_snoop_table("held", "all", namespace)
        held.wait_until_held()
        yield
        held.release()


def _rtnetlink(*messages: nlmsg) -> Action:
    def send(namespace: str) -> None:
        netlink.transact(netlink.NETLINK_ROUTE, messages, namespace)

    return send


def _add_device(namespace: str) -> None:
    _rtnetlink(rtnetlink.add_dummy("extra", _INDEX))(namespace)


def _set_mtu(namespace: str) -> None:
    _rtnetlink(rtnetlink.set_mtu(_INDEX + 1, 1400))(namespace)


def _add_address(namespace: str) -> None:
    _rtnetlink(rtnetlink.add_address(_INDEX + 1, "192.0.5.1", 24))(namespace)


def _add_plain_table(namespace: str) -> None:
    flowtable.create_snoop_table("plain", "ft", namespace, flags=0)


def _add_snoop_table(namespace: str) -> None:
    flowtable.create_snoop_table("other", "spy", namespace)


def _add_rules(namespace: str) -> None:
    nftables.run(
        "add table inet rules; add chain inet rules c; add rule inet rules c accept", namespace
    )


def _list_flowtables(namespace: str) -> None:
    flowtable.list_flowtables(namespace)


ACTIONS: dict[str, Action] = {
    "device-added": _add_device,
    "mtu-set": _set_mtu,
    "address-added": _add_address,
    "flowtable-added": _add_plain_table,
    "snoop-table-added": _add_snoop_table,
    "rules-added": _add_rules,
    "flowtables-listed": _list_flowtables,
}
each_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)


@pytest.fixture
def namespaces(make_netns: MakeNetns) -> tuple[str, str]:
    """A netns that snoops and another one, each with a dummy device that is down."""
    names = make_netns("fm-snoops"), make_netns("fm-other")
    for name in names:
        _rtnetlink(rtnetlink.add_dummy("dummy", _INDEX + 1))(name)
    return names


def _snoop_tables(table: str, count: int, flags: int = flowtable.SNOOP) -> list[nlmsg]:
    """Return messages that create a table with so many flowtables."""
    return [
        flowtable.new_table(flowtable.INET, table),
        *(
            flowtable.new_flowtable(flowtable.INET, table, f"spy{number}", flags=flags)
            for number in range(count)
        ),
    ]


@pytest.mark.clause("SN-3.5", "SN-12.1")
@pytest.mark.parametrize("flags", [0, flowtable.SNOOP], ids=["plain", "snoop"])
@pytest.mark.parametrize("count", [1, _BATCH_SIZE], ids="{}-tables".format)
@pytest.mark.usefixtures("require_preempt_rcu")
def test_commit_waits_for_no_grace_period(
    namespaces: tuple[str, str], count: int, flags: int
) -> None:
    """A commit with snoop tables ends while no grace period can, as one with other tables does."""
    snooping, _ = namespaces
    messages = _snoop_tables("spy", count, flags)
    with _grace_periods_stopped():
        flowtable.commit_batch(messages, snooping)
        assert len(flowtable.list_flowtables(snooping)) == count
    assert len(flowtable.list_flowtables(snooping)) == count


@pytest.mark.clause("SN-12.1", "SN-12.2", "SN-12.3")
@pytest.mark.parametrize("where", ["same-netns", "other-netns"])
@each_action
@pytest.mark.usefixtures("require_preempt_rcu")
def test_action_after_commit_waits_for_no_grace_period(
    namespaces: tuple[str, str], action: Action, where: str
) -> None:
    """Commits and RTNL go on, there and elsewhere, while a committed snoop table is unpublished."""
    snooping, other = namespaces
    with _grace_periods_stopped():
        committer = child_process.GatedChild(
            lambda: flowtable.create_snoop_table("spy", "all", snooping), TEST_CPU
        )
        committer.start()
        # If the commit waits, it holds its mutex, and the child does not end.
        committer.join()
        action(snooping if where == "same-netns" else other)


@pytest.mark.clause("SN-12.1", "SN-12.2", "SN-12.3")
@pytest.mark.parametrize("where", ["same-netns", "other-netns"])
@each_action
@pytest.mark.usefixtures("require_preempt_rcu", "flowmap_loaded")
def test_action_during_map_create_waits_for_no_grace_period(
    namespaces: tuple[str, str], action: Action, where: str
) -> None:
    """Commits and RTNL go on, there and elsewhere, while a new flow map waits for its publication.

    The creation itself returns once the map is published.
    """
    snooping, other = namespaces

    def create() -> int:
        with bpf.open_flowmap(snooping) as fd:
            return bpf.flowmap_entry_count(fd)

    creator = child_process.GatedChild(create, TEST_CPU)
    with _grace_periods_stopped():
        creator.start()
        wait_for("the map to exist", lambda: modules.refcount(modules.FLOWMAP_MODULE) > 0)
        action(snooping if where == "same-netns" else other)
    assert creator.join() == 0


def _offload(conn: Connection) -> None:
    assert len(conn.wait_offloaded().keys) == 2


@pytest.mark.clause("SN-3.1", "SN-3.2", "SN-3.5")
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.usefixtures("require_preempt_rcu")
def test_flow_is_offloaded_while_snoop_table_is_unpublished(
    private_router: Router,
    open_private_connection: OpenConnection,
    protocol: int,
    version: int,
) -> None:
    """Flows are offloaded before publication ends, and the table then has old and new ones."""
    namespace = private_router.namespace
    _offload(open_private_connection(protocol, version, server_port=7001))
    late = open_private_connection(protocol, version, server_port=7002)
    with _grace_periods_stopped():
        flowtable.create_snoop_table("spy", "all", namespace)
        _offload(late)
    wait_for(
        "the snoop table to have both flows",
        lambda: flowtable.snoop_counters("spy", "all", namespace) == (2, 0),
    )


@pytest.mark.clause("SN-12.4", "SN-9.1", "SN-3.1")
def test_grace_periods_of_batch_do_not_grow_with_tables(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """A batch of many snoop tables is published with fewer grace periods than it has tables."""
    namespace = private_router.namespace
    _offload(open_private_connection(IPPROTO_UDP, 4))
    with ftrace.count_calls("synchronize_rcu") as called:
        flowtable.commit_batch(_snoop_tables("spy", _BATCH_SIZE), namespace)
        wait_for(
            "each table to have the flow",
            lambda: all(
                flowtable.snoop_counters("spy", f"spy{number}", namespace) == (1, 0)
                for number in range(_BATCH_SIZE)
            ),
        )
        assert called().total() < _BATCH_SIZE // 2


@pytest.mark.clause("SN-12.1", "SN-9.3")
@pytest.mark.usefixtures("require_preempt_rcu")
def test_snoop_table_deleted_before_publication_is_gone(
    private_router: Router, open_private_connection: OpenConnection, make_flowmap: MakeFlowmap
) -> None:
    """A snoop table can be deleted before it is published, and leaves no trace.

    The deletion runs in a child: closing a netlink socket afterwards waits in nf_tables for the
    grace period before the table is freed.
    """
    namespace = private_router.namespace
    flow = open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    deleter = child_process.GatedChild(lambda: flowtable.drop_table("spy", namespace), TEST_CPU)
    # ftrace waits for grace periods, too, when it is set up and removed.
    with ftrace.count_calls("nf_tables_commit") as called, _grace_periods_stopped():
        flowtable.create_snoop_table("spy", "all", namespace)
        deleter.start()
        wait_for("the deletion to be committed", lambda: called()["nf_tables_commit"] == 2)
    deleter.join()
    fd = make_flowmap(namespace)
    assert [bpf.lookup(fd, key).dir for key in flow.keys] == [0, 1]
    assert bpf.flowmap_entry_count(fd) == 1


def _create_and_close_map(namespace: str) -> None:
    with bpf.open_flowmap(namespace):
        pass


def _wait_published(namespace: str) -> None:
    """Create a snoop table and wait for a map, which is published after it or with it."""
    _add_snoop_table(namespace)
    _create_and_close_map(namespace)


def _set_down(namespace: str) -> None:
    _rtnetlink(rtnetlink.set_up(_INDEX + 1), rtnetlink.set_down(_INDEX + 1))(namespace)


def _delete_device(namespace: str) -> None:
    _rtnetlink(rtnetlink.delete_link(_INDEX + 1))(namespace)


@pytest.mark.clause("SN-12.2", "SN-12.3", "SN-12.4")
@pytest.mark.parametrize(
    "action",
    [_create_and_close_map, _wait_published, _set_down, _delete_device],
    ids=["map-create", "snoop-table-publish", "device-down", "device-delete"],
)
@pytest.mark.usefixtures("flowmap_loaded")
def test_held_publication_does_not_hold_other_namespace(
    namespaces: tuple[str, str], action: Action
) -> None:
    """Publication in one namespace does not wait for publication in another; nor does RTNL."""
    snooping, other = namespaces
    with _publication_held(snooping):
        action(other)


@pytest.mark.clause("SN-12.3", "SN-12.6")
@pytest.mark.parametrize("snoops", [False, True], ids=["exits-unsnooped", "exits-snooped"])
@pytest.mark.usefixtures("flowmap_loaded")
def test_held_publication_does_not_hold_netns_exit(
    namespaces: tuple[str, str], make_netns: MakeNetns, cleanup: ExitStack, snoops: bool
) -> None:
    """A namespace exits while publication in another one is held, also if it has a snoop table."""
    snooping, other = namespaces
    exiting = make_netns("fm-exits")
    if snoops:
        flowtable.create_snoop_table("spy", "all", exiting)
    with netns.entered(exiting if snoops else other):
        fd = bpf.flowmap_create()
    cleanup.callback(os.close, fd)
    with (
        _publication_held(snooping),
        stop_at("dec_ucount", comm="kworker") as almost_gone,
    ):
        netns.remove(exiting)
        almost_gone.wait_until_held()
        almost_gone.release()
    assert list(bpf.iterate_keys(fd)) == []
