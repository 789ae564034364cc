# SPDX-License-Identifier: GPL-2.0-only
"""A value that a program of any type has looked up stays readable when its flow ends."""

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU, TEST_CPU, stop_at
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeNetns, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu", "require_preempt_rcu")

_SLOT = bytes(4)
_FRAME = bytes(64)


@pytest.mark.clause("FM-9.1", "RT-1.1")
@pytest.mark.parametrize(
    "program",
    ["late_by_xdp", "late_by_tc", "late_by_cgroup", "late_by_socket"],
    ids=["xdp", "tc", "cgroup-skb", "socket-filter"],
)
@pytest.mark.parametrize(
    ("version", "direction"), [(4, 0), (6, 1)], ids=["ipv4-original", "ipv6-reply"]
)
def test_program_reads_value_of_flow_that_ended_after_its_lookup(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    make_netns: MakeNetns,
    program: str,
    version: int,
    direction: int,
) -> None:
    """A program is held after its lookup; the flow ends; the program reads the whole value.

    New flows that would reuse freed memory are added meanwhile, on the CPU that removed the flow.
    """
    namespace = private_router.namespace
    conn, *others = [
        open_private_connection(IPPROTO_UDP, version, server_port=7000 + number)
        for number in range(4)
    ]
    flow = conn.wait_offloaded()
    key = flow.keys[direction]
    value = bpf.lookup(private_flowmap, key)
    loaded = load_bpf("read_value_late", private_flowmap, program)
    bpf.update_raw(loaded.map_fd("wanted_key"), _SLOT, bytes(key))
    fd = loaded.program_fd(program)
    runner = child_process.GatedChild(lambda: prog_syscalls.run_on_packet(fd, _FRAME), HELD_CPU)
    interleavings.run_gc_on_this_cpu(make_netns("fm-gc"))
    with (
        stop_at("flow_offload_free", cpu=TEST_CPU) as deletion,
        stop_at("array_map_update_elem", tgid=runner.pid) as value_read,
    ):
        runner.start()
        value_read.wait_until_held(busy_poll=True)
        conntrack.flush(namespace)
        deletion.wait_until_held(busy_poll=True)
        deletion.release()
        wait_for("the flow to be removed", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)
        for other in others:
            other.wait_offloaded()
        value_read.release()
    runner.join()
    raw = bpf.lookup_raw(loaded.map_fd("read_value"), _SLOT, uapi.VALUE_SIZE)
    read = uapi.Value.from_buffer_copy(raw)
    read.expires = value.expires = 0  # the program's lookup has refreshed the flow
    assert bytes(read) == bytes(value)
    assert bpf.lookup_or_none(private_flowmap, key) is None
