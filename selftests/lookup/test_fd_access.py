# SPDX-License-Identifier: GPL-2.0-only
"""Maps with read-only or write-only descriptors, and maps with BTF, in use."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpf_attr import F_RDONLY, F_RDONLY_PROG, F_WRONLY
from fixtures.guest.bpf.btf_builder import BtfBuilder
from fixtures.guest.bpf.map_readers import LookupProbe
from fixtures.guest.core.expect_errno import errno_of, expect_errno
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

Use = Callable[[int, uapi.Key], object]

READS: dict[str, Use] = {
    "lookup": bpf.lookup,
    "next-key": lambda fd, _: bpf.next_key(fd, None),
    "next-key-of-key": lambda fd, key: _next_or_end(fd, key),
    "batch": lambda fd, _: bpf.lookup_batch(fd, 16),
}
WRITES: dict[str, Use] = {
    "update": lambda fd, key: bpf.update(fd, key, uapi.Value()),
    "delete": bpf.delete,
}
_BOTH: dict[str, Use] = {"lookup-and-delete": bpf.lookup_and_delete}


def _next_or_end(fd: int, key: uapi.Key) -> uapi.Key | None:
    try:
        return bpf.next_key(fd, key)
    except FileNotFoundError:
        return None


def _assert_refused(uses: dict[str, Use], fd: int, key: uapi.Key, number: int) -> None:
    for use in uses.values():
        with expect_errno(number):
            use(fd, key)


def _assert_reads(fd: int, flow: Flow) -> None:
    for direction, key in enumerate(flow.keys):
        assert bpf.lookup(fd, key).dir == direction
    keys = sorted(map(bytes, flow.keys))
    assert sorted(map(bytes, bpf.iterate_keys(fd))) == keys
    pairs, _, ended = bpf.lookup_batch(fd, 16)
    assert ended
    assert sorted(bytes(key) for key, _ in pairs) == keys


@pytest.mark.clause("FM-1.7")
@pytest.mark.parametrize("flows_are", ["first", "last"], ids="flow-{}".format)
def test_map_with_restricted_descriptor_permits_only_its_access(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
    flows_are: str,
) -> None:
    """A read-only descriptor reads, a write-only one does not; programs find flows with either.

    What the descriptor does not permit is EPERM, and what no flow map supports stays refused.  A
    further descriptor of the same map may have other access.
    """
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded() if flows_are == "first" else None
    read_only = make_flowmap(router.namespace, map_flags=F_RDONLY_PROG | F_RDONLY)
    write_only = make_flowmap(router.namespace, map_flags=F_RDONLY_PROG | F_WRONLY)
    flow = flow or open_connection(IPPROTO_UDP, 6).wait_offloaded()

    _assert_reads(read_only, flow)
    _assert_refused(WRITES | _BOTH, read_only, flow.original, errno.EPERM)
    _assert_refused(READS | _BOTH, write_only, flow.original, errno.EPERM)
    _assert_refused(WRITES, write_only, flow.original, errno.EOPNOTSUPP)
    for fd in (read_only, write_only):
        info = bpf.map_info(fd)
        # Access is the descriptor's, not the map's (bpf_map_flags_retain_permanent()).
        assert info.map_flags == F_RDONLY_PROG
        assert bpf.flowmap_entry_count(fd) == 1
        probe = LookupProbe(load_bpf("lookup_probe", fd, "by_tc"), "by_tc")
        assert [value.dir for key in flow.keys if (value := probe.lookup(key))] == [0, 1]
        for flags, may_read in ((0, True), (F_RDONLY, True), (F_WRONLY, False)):
            again = bpf.map_fd_by_id(info.id, flags)
            cleanup.callback(os.close, again)
            if may_read:
                _assert_reads(again, flow)
            else:
                _assert_refused(READS, again, flow.original, errno.EPERM)


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.6", "MM-5.1")
def test_map_flags_rdonly_and_wronly_together_are_einval(flowmap_loaded: str) -> None:
    """A descriptor cannot be both read-only and write-only."""
    flags = F_RDONLY_PROG | F_RDONLY | F_WRONLY
    assert errno_of(lambda: bpf.flowmap_create(map_flags=flags)) == errno.EINVAL
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.clause("FM-1.8")
@pytest.mark.parametrize("value_size", [uapi.VALUE_SIZE_VER0, uapi.VALUE_SIZE])
def test_map_with_btf_shows_types_and_finds_flows(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    cleanup: ExitStack,
    value_size: int,
) -> None:
    """A map that was created with valid types reports them, and every reader finds its flows."""
    types = BtfBuilder()
    key_type = types.add_struct_of_bytes("any_key", uapi.KEY_SIZE)
    value_type = types.add_struct_of_bytes("any_value", value_size)
    types_fd = types.load()
    cleanup.callback(os.close, types_fd)
    early = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    fd = make_flowmap(
        router.namespace,
        value_size=value_size,
        btf_fd=types_fd,
        btf_key_type_id=key_type,
        btf_value_type_id=value_type,
    )
    info = bpf.map_info(fd)
    assert info.btf_id
    assert (info.btf_key_type_id, info.btf_value_type_id) == (key_type, value_type)
    assert (info.key_size, info.value_size) == (uapi.KEY_SIZE, value_size)

    late = open_connection(IPPROTO_TCP, 6).wait_offloaded()
    program = "by_xdp" if value_size == uapi.VALUE_SIZE else "by_xdp_ver0"
    probe = LookupProbe(load_bpf("lookup_probe", fd, program), program)
    plain = make_flowmap(router.namespace)
    for flow in (early, late):
        for direction, key in enumerate(flow.keys):
            value = bytes(bpf.lookup(plain, key))[:value_size]
            assert bpf.lookup_raw(fd, bytes(key), value_size)[8:] == value[8:]
            found = probe.lookup(key)
            assert found is not None
            assert found.dir == direction
    pairs, _, ended = bpf.lookup_batch(fd, 16, value_size=value_size)
    assert ended
    keys = sorted(bytes(key) for flow in (early, late) for key in flow.keys)
    assert sorted(bytes(key) for key, _ in pairs) == keys
    # The types stay with the map when their creator's descriptor is closed.
    again = bpf.map_fd_by_id(info.id)
    cleanup.callback(os.close, again)
    assert bpf.map_info(again).btf_id == info.btf_id
    assert bpf.map_info(again).map_flags == bpf_attr.F_RDONLY_PROG
