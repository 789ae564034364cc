# SPDX-License-Identifier: GPL-2.0-only
"""Views that are removed put the object cgroup of their creator.

Such a reference keeps neither the memcg nor a charge, so that neither cgroup.stat nor memory.stat
shows it; kmemleak does not either, because the kernel has the object in a list.
"""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import memcg
from fixtures.guest.kernel.drgn_client import POLL_INTERVAL, DrgnClient
from fixtures.guest.net import flowtable
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

_NO_DESCRIPTOR = 1 << 20
_KEPT_PER_CPU = 8
"""More object cgroups than a CPU keeps a reference to (NR_OBJ_STOCK in mm/memcontrol.c is 5)."""


def _charge_on_each_cpu(groups: list[memcg.Cgroup]) -> None:
    """Charge other memcgs on each CPU, which keeps references to the last ones that it charged."""

    def charge(group: memcg.Cgroup) -> None:
        group.enter()
        for cpu in range(os.cpu_count() or 1):
            os.sched_setaffinity(0, {cpu})
            for _ in range(4):
                os.pipe()

    for group in groups:
        child_process.run_in_child(lambda: charge(group))  # noqa: B023


@pytest.mark.clause("MM-10.6", "SN-8.1", "RT-3.1")
@pytest.mark.deadline(60)
@pytest.mark.parametrize("kind", ["map", "snoop-table", "refused-map", "aborted-batch"])
def test_removed_view_puts_object_cgroup(
    private_router: Router,
    open_private_connection: OpenConnection,
    guest_memory: DrgnClient,
    cleanup: ExitStack,
    kind: str,
) -> None:
    """After a view is gone, and after one that was never there, no object cgroup is left."""
    ns = private_router.namespace
    open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    group = memcg.create("fm-views", cleanup)
    others = [memcg.create(f"fm-other-{number}", cleanup) for number in range(_KEPT_PER_CPU)]

    def create_and_remove() -> None:
        if kind == "map":
            with bpf.open_flowmap(ns) as fd:
                assert bpf.flowmap_entry_count(fd) == 1
        elif kind == "snoop-table":
            flowtable.create_snoop_table("spy", "all", ns)
            wait_for("the flow", lambda: flowtable.snoop_counters("spy", "all", ns)[0] == 1)
            flowtable.drop_table("spy", ns)
        elif kind == "refused-map":
            # The map and its view are there when the descriptor is found to be none.
            types = {"btf_fd": _NO_DESCRIPTOR, "btf_key_type_id": 1, "btf_value_type_id": 1}
            with expect_errno(errno.EBADF), bpf.open_flowmap(ns, **types):
                pass
        else:
            snoop = flowtable.new_flowtable(
                flowtable.INET, "fw", "spy", flags=flowtable.SNOOP, devices=["r0"]
            )
            taken = flowtable.new_flowtable(flowtable.INET, "fw", "ft", flags=0)
            with expect_errno(errno.EEXIST):
                flowtable.commit_batch([snoop, taken], ns)

    def create_and_remove_in_group() -> None:
        group.enter()
        create_and_remove()

    # What a first use leaves behind, such as pages of files, is charged to no memcg of the test.
    child_process.run_in_child(create_and_remove)
    before = guest_memory.object_cgroups()
    child_process.run_in_child(create_and_remove_in_group)
    group.wait_until_empty()
    group.remove()

    def released() -> bool:
        _charge_on_each_cpu(others)
        return guest_memory.object_cgroups() <= before

    wait_for("the object cgroup to be released", released, interval=POLL_INTERVAL)
