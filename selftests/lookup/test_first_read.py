# SPDX-License-Identifier: GPL-2.0-only
"""A value is complete as soon as it can be found, whoever reads it first."""

import struct
from collections.abc import Callable

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel.syncpoints import HELD_CPU
from fixtures.guest.net import conntrack
from fixtures.guest.pytest_plugin.plugin_api import (
    LoadBpf,
    MakeFlowmap,
    OpenConnection,
    router_config_id,
)
from fixtures.guest.topology.client_router_server import Router, RouterConfig
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow
from selftests.races import interleavings

_FRAME = bytes(64)
_ROUNDS = 4
_REPEAT = 500
# struct first_value of selftests/bpf/first_value.bpf.c
_FIRST = struct.Struct(f"=II{uapi.KEY_SIZE}s{uapi.VALUE_SIZE}s")

each_nat = pytest.mark.parametrize(
    "router", [RouterConfig(), RouterConfig(nat="snat+dnat")], ids=router_config_id, indirect=True
)


def _without_expiry(value: uapi.Value | None) -> bytes:
    """Return a value without its first field, which lookups by programs may move."""
    assert value is not None
    return bytes(value)[8:]


def _by_batch(fd: int, probe: LookupProbe, key: uapi.Key) -> bytes:  # noqa: ARG001
    pairs, _, _ = bpf.lookup_batch(fd, 64)
    return {bytes(found): _without_expiry(value) for found, value in pairs}[bytes(key)]


READERS: dict[str, Callable[[int, LookupProbe, uapi.Key], bytes]] = {
    "lookup": lambda fd, _, key: _without_expiry(bpf.lookup(fd, key)),
    "batch": _by_batch,
    "program": lambda _, probe, key: _without_expiry(probe.lookup(key)),
}


@pytest.mark.clause("FM-3.20", "FM-6.3", "SN-9.2")
@each_nat
def test_first_reader_of_a_value_gets_all_of_it(
    router: Router,
    flowmap: int,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
) -> None:
    """Whichever reader is the first, in whichever map, gets the value that all others get.

    Each reader is the first of some flow, and of either direction.
    """
    later = make_flowmap(router.namespace)
    programs = ("by_xdp", "by_tc", "by_cgroup", "by_socket")
    loaded = load_bpf("lookup_probe", later, *programs)
    for number, (first, program) in enumerate(
        [("lookup", "by_tc"), ("batch", "by_xdp"), *[("program", name) for name in programs]]
    ):
        read, probe = READERS[first], LookupProbe(loaded, program)
        flow = open_connection(
            (IPPROTO_UDP, IPPROTO_TCP)[number % 2],
            6 if number % 2 else 4,
            server_port=7100 + number,
        ).wait_offloaded()
        keys = flow.keys if number % 2 else flow.keys[::-1]
        for key in keys:
            seen = read(flowmap if first == "lookup" else later, probe, key)
            for name, other in READERS.items():
                for fd in (flowmap, later):
                    assert other(fd, probe, key) == seen, f"{first} first, then {name}"
            value = bpf.lookup(flowmap, key)
            assert value.oifindex in (router.lan.ifindex, router.wan.ifindex)
            assert value.ct_id == flow.entry.ct_id


def _first_values(loaded: BpfObject) -> list[uapi.Value | None]:
    """Return the value that the program found first, for each direction."""
    values: list[uapi.Value | None] = []
    for direction in (0, 1):
        slot = struct.pack("=I", direction)
        raw = bpf.lookup_raw(loaded.map_fd("first_values"), slot, _FIRST.size)
        found, _, _, value = _FIRST.unpack(raw)
        values.append(uapi.Value.from_buffer_copy(value) if found else None)
    return values


def _expect(loaded: BpfObject, keys: tuple[uapi.Key, uapi.Key]) -> None:
    for direction, key in enumerate(keys):
        slot = struct.pack("=I", direction)
        first = _FIRST.pack(0, 0, bytes(key), bytes(uapi.VALUE_SIZE))
        bpf.update_raw(loaded.map_fd("first_values"), slot, first)


@pytest.mark.clause("FM-3.20", "SN-4.2")
@pytest.mark.usefixtures("pinned_to_test_cpu")
@pytest.mark.deadline(60)
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_value_found_while_its_flow_is_added_is_complete(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    load_bpf: LoadBpf,
    version: int,
) -> None:
    """A program that polls for a flow on another CPU never sees a part of its value.

    The flow is added several times; each time the first value that is found is complete.
    """
    loaded = load_bpf("first_value", private_flowmap, "keep_first_values")
    program = loaded.program_fd("keep_first_values")
    conn = open_private_connection(IPPROTO_UDP, version)
    keys = interleavings.expected_keys(conn)
    for _ in range(_ROUNDS):
        _expect(loaded, keys)

        def poll_until_found() -> None:
            while None in _first_values(loaded):
                prog_syscalls.run_on_packet(program, _FRAME, repeat=_REPEAT)

        poller = child_process.GatedChild(poll_until_found, HELD_CPU)
        poller.start()
        flow: Flow = conn.wait_offloaded()
        poller.join()
        for direction, first in enumerate(_first_values(loaded)):
            current = bpf.lookup(private_flowmap, flow.keys[direction])
            assert first is not None
            assert _without_expiry(first) == _without_expiry(current)
            assert first.expires > 0
        conntrack.flush(private_router.namespace)
        wait_for("the flow to leave", lambda: bpf.flowmap_entry_count(private_flowmap) == 0)
