# SPDX-License-Identifier: GPL-2.0-only
"""Lookups by a program that interrupts the resize of the index's hash table."""

import errno
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject, LoadError
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import sysfs_override
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

_WORKER = "rht_deferred_worker"
"""Moves each entry of a rhashtable to a table of another size, in lib/rhashtable.c."""
_OPTIMIZATION = Path("/proc/sys/debug/kprobes-optimization")
"""Makes jumps of probes; it keeps new probes waiting for grace periods of all tasks."""
_MAX_KEYS = 64
_BUCKETS = 64
"""A rhashtable starts with these, and grows when three quarters as many entries are in it."""
# Counters of selftests/bpf/rehash_lookups.bpf.c
HITS, FOUND, MISSED, ENDED = range(4)


def _function_size(name: str) -> int:
    """Return the octets from a function to the next symbol."""
    symbols = [line.split()[:3] for line in Path("/proc/kallsyms").read_text().splitlines()]
    begin = next(int(address, 16) for address, _, symbol in symbols if symbol == name)
    return min(int(address, 16) for address, _, _ in symbols if int(address, 16) > begin) - begin


def _attach_everywhere(program: BpfObject, cleanup: ExitStack) -> int:
    """Attach the lookups to each instruction of the worker; return how many there are."""
    attached = 0
    for offset in range(_function_size(_WORKER)):
        try:
            program.attach_kprobe("look_up_all", _WORKER, cleanup, offset=offset)
        except LoadError as error:
            # No instruction begins at this offset.
            if error.errno != errno.EILSEQ:
                raise
        else:
            attached += 1
    return attached


@pytest.mark.clause("FM-4.8", "RT-1.1")
@pytest.mark.deadline(120)
# Each probe that is detached waits for grace periods; the resize itself waits for none.
@pytest.mark.usefixtures("expedited_grace_periods")
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_lookup_within_rehash_finds_each_flow(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    version: int,
) -> None:
    """A program that runs between any two instructions of a resize finds each key at each lookup.

    Lookups end there: what the resize has moved halfway is neither missed nor waited for.
    """
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})

    def open_flow(number: int) -> Flow:
        protocol = (IPPROTO_TCP, IPPROTO_UDP)[number % 2]
        return open_private_connection(
            protocol, version, server_port=7200 + number
        ).wait_offloaded()

    flows = [open_flow(number) for number in range(_BUCKETS * 3 // 4 // 2)]
    keys = [key for flow in flows for key in flow.keys]
    assert len(keys) <= _MAX_KEYS
    program = load_bpf("rehash_lookups", private_flowmap)
    for slot, key in enumerate(keys):
        bpf.update_raw(program.map_fd("keys"), slot.to_bytes(4, sys.byteorder), bytes(key))

    with ExitStack() as probes:
        if _OPTIMIZATION.exists():
            probes.enter_context(sysfs_override.override(_OPTIMIZATION, "0"))
        program.attach_kprobe("count_end", _WORKER, probes, retprobe=True)
        instructions = _attach_everywhere(program, probes)
        open_flow(len(flows))
        wait_for(f"the end of {_WORKER}", lambda: program.counter(ENDED) > 0 or None, seconds=30)

    # Each instruction that moves an entry runs once for each entry.
    assert program.counter(HITS) > instructions + len(keys)
    assert program.counter(FOUND) == program.counter(HITS) * len(keys)
    assert program.counter(MISSED) == 0
