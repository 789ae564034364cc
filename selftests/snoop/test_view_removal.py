# SPDX-License-Identifier: GPL-2.0-only
"""One view of several is removed: the others go on as before, also when flows end later."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.net import conntrack, flowtable, netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology import client_router_server
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Connection,
    Flow,
    close_without_shutdown,
    connect,
)

KINDS = ("map", "snoop-table")
_PROTOCOLS = (IPPROTO_UDP, IPPROTO_TCP)


@dataclass
class View:
    """A flow map or a snoop table, until `remove`."""

    kind: str
    remove: Callable[[], None]
    counts: Callable[[], tuple[int, int]]
    """Returns how many flows the view has, and how many it has missed."""
    fd: int | None = None
    """Descriptor of the flow map."""

    def assert_holds(self, flows: list[Flow], when: str) -> None:
        """Wait until the view has so many flows; a map must find exactly these."""
        what = f"the {self.kind} to have {len(flows)} flows {when}"
        wait_for(what, lambda: self.counts() == (len(flows), 0))
        if self.fd is not None:
            keys = sorted(bytes(key) for flow in flows for key in flow.keys)
            assert sorted(map(bytes, bpf.iterate_keys(self.fd))) == keys, when
            for flow in flows:
                assert [bpf.lookup(self.fd, key).dir for key in flow.keys] == [0, 1], when


def _create_view(kind: str, number: int, namespace: str, cleanup: ExitStack) -> View:
    if kind == "map":
        with netns.entered(namespace):
            fd = bpf.flowmap_create()
        undo = cleanup.enter_context(ExitStack())
        undo.callback(os.close, fd)

        def map_counts() -> tuple[int, int]:
            return bpf.flowmap_entry_count(fd), bpf.flowmap_missed_count(fd)

        return View(kind, undo.close, map_counts, fd)
    table = f"spy{number}"
    flowtable.create_snoop_table(table, "all", namespace)
    return View(
        kind,
        partial(flowtable.drop_table, table, namespace),
        partial(flowtable.snoop_counters, table, "all", namespace),
    )


def _offload(open_connection: OpenConnection, count: int, first_port: int) -> list[Connection]:
    """Offload connections of both protocols and IP versions."""
    conns = [
        open_connection(
            _PROTOCOLS[number // 2 % 2], 6 if number % 2 else 4, server_port=first_port + number
        )
        for number in range(count)
    ]
    for conn in conns:
        conn.wait_offloaded()
    return conns


@pytest.mark.clause("SN-9.3", "SN-6.4")
@pytest.mark.parametrize(
    "kinds",
    [("map",) * 3, ("snoop-table",) * 3, ("map", "snoop-table", "map")],
    ids=["maps", "snoop-tables", "mixed"],
)
@pytest.mark.parametrize("flows_are", ["first", "between"], ids="flows-{}".format)
def test_flow_that_ends_after_removal_of_a_view_leaves_the_others(
    private_router: Router,
    open_private_connection: OpenConnection,
    kinds: tuple[str, ...],
    flows_are: str,
) -> None:
    """A view is removed, then flows end: the other views lose these flows, and only these.

    The flows are there before all views, or from after the first view.  After the removal, flows
    end and begin, until none is left.  The first, the second and the last of three views is removed
    in turn.
    """
    for removed in range(len(kinds)):
        with ExitStack() as cleanup:
            _remove_one_of_views(
                private_router, open_private_connection, cleanup, kinds, removed, flows_are
            )


def _remove_one_of_views(
    router: Router,
    open_connection: OpenConnection,
    cleanup: ExitStack,
    kinds: tuple[str, ...],
    removed: int,
    flows_are: str,
) -> None:
    namespace = router.namespace
    port = 7100 + 20 * removed
    conns: list[Connection] = []
    views = []
    for number, kind in enumerate(kinds):
        if not conns and (flows_are == "first" or number):
            conns = _offload(open_connection, 4, port)
        views.append(_create_view(kind, number, namespace, cleanup))
    flows = [conn.wait_offloaded() for conn in conns]
    for view in views:
        view.assert_holds(flows, "at first")

    views.pop(removed).remove()
    for view in views:
        view.assert_holds(flows, f"after the removal of view {removed}")
    conntrack.delete(flows.pop(0).entry.original, namespace)
    for view in views:
        view.assert_holds(flows, "after the end of a flow")
    flows.append(_offload(open_connection, 1, port + 10)[0].wait_offloaded())
    for view in views:
        view.assert_holds(flows, "after the addition of a flow")
    # Two at a time: garbage collection, which ends the flows, runs once in a second.
    while flows:
        for flow in flows[:2]:
            conntrack.delete(flow.entry.original, namespace)
        del flows[:2]
        for view in views:
            view.assert_holds(flows, "after the end of two flows more")
    # The place of the removed view, if it is taken again, has no flow either.
    again = _create_view(kinds[removed], 7, namespace, cleanup)
    for view in (*views, again):
        view.assert_holds([], "after all flows have ended")
        view.remove()


@pytest.mark.clause("SN-9.1", "SN-9.3")
def test_half_of_a_batch_of_snoop_tables_is_deleted(
    private_router: Router, open_private_connection: OpenConnection
) -> None:
    """Of snoop tables that one batch created another batch deletes half; the rest have all flows.

    The flows that begin and end afterwards are counted once in each of the rest.
    """
    names = [f"spy{number}" for number in range(8)]
    for number, gone in enumerate((names[:4], names[4:], names[::2])):
        _delete_snoop_tables(
            private_router.namespace, open_private_connection, names, gone, 7100 + 20 * number
        )


def _delete_snoop_tables(
    namespace: str, open_connection: OpenConnection, names: list[str], gone: list[str], port: int
) -> None:
    messages = [flowtable.new_table(flowtable.INET, "spies")]
    messages += [
        flowtable.new_flowtable(flowtable.INET, "spies", name, flags=flowtable.SNOOP)
        for name in names
    ]
    flowtable.commit_batch(messages, namespace)
    conns = _offload(open_connection, 4, port)
    flowtable.commit_batch(
        [flowtable.delete_flowtable(flowtable.INET, "spies", name) for name in gone], namespace
    )
    left = [name for name in names if name not in gone]

    def counts() -> set[tuple[int, int]]:
        return {flowtable.snoop_counters("spies", name, namespace) for name in left}

    assert sorted(table.name for table in flowtable.list_flowtables(namespace)) == ["ft", *left]
    wait_for("the rest to have all flows", lambda: counts() == {(4, 0)})
    conntrack.delete(conns[0].tuple, namespace)
    wait_for("one flow to leave", lambda: counts() == {(3, 0)})
    _offload(open_connection, 2, port + 10)
    wait_for("two flows to be added", lambda: counts() == {(5, 0)})
    conntrack.flush(namespace)
    wait_for("all flows to leave", lambda: counts() == {(0, 0)})
    flowtable.drop_table("spies", namespace)


@pytest.mark.clause("SN-2.4", "SN-9.3")
def test_exit_of_one_netns_leaves_views_of_another(
    private_router: Router, open_private_connection: OpenConnection, cleanup: ExitStack
) -> None:
    """Two netns have views and flows with the same tuples; one exits, the other goes on."""
    views = [
        _create_view(kind, number, private_router.namespace, cleanup)
        for number, kind in enumerate(KINDS)
    ]
    flow = open_private_connection(IPPROTO_UDP, 4, client_port=40123).wait_offloaded()
    with ExitStack() as other:
        router = client_router_server.build_router(RouterConfig(netns_prefix="exits"), other)
        gone_map = _create_view("map", 0, router.namespace, cleanup)
        flowtable.create_snoop_table("spy", "all", router.namespace)
        conn = connect(router, IPPROTO_UDP, 4, other, client_port=40123)
        same = conn.wait_offloaded()
        assert bytes(same.original) == bytes(flow.original)
        gone_map.assert_holds([same], "before the exit of its netns")
        # An open socket would keep the hosts' netns alive.
        close_without_shutdown(conn.client, conn.server)
    gone_map.assert_holds([], "after the exit of its netns")
    for view in views:
        view.assert_holds([flow], "after the exit of another netns")
    conntrack.flush(private_router.namespace)
    for view in views:
        view.assert_holds([], "after the flush")
