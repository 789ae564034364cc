# SPDX-License-Identifier: GPL-2.0-only
"""The value's size: any from the first version's to the current one, filled as far as asked.

A program or reader that knows an older and shorter value goes on working when the value grows.
"""

import ctypes
import errno
import socket
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpf_attr import Command, MapElemAttr
from fixtures.guest.bpf.libbpf import LoadError
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology import ipip
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow, connect

SMALLEST, LARGEST = uapi.VALUE_SIZE_VER0, uapi.VALUE_SIZE
SIZES = [SMALLEST, SMALLEST + 1, SMALLEST + 8, SMALLEST + 16, LARGEST - 1, LARGEST]
_GUARD, _GUARD_OCTETS = 0xA5, 64

each_size = pytest.mark.parametrize("value_size", SIZES, ids="value-{}".format)
each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.2", "FM-13.1")
@each_size
def test_map_create_with_value_size_in_range_succeeds(
    make_flowmap: MakeFlowmap, value_size: int
) -> None:
    """Every size from the first version's to the current one is accepted and reported."""
    assert bpf.map_info(make_flowmap(value_size=value_size)).value_size == value_size


@pytest.mark.shared_vm
@pytest.mark.clause("FM-1.2", "FM-13.1", "MM-5.1")
@pytest.mark.parametrize(
    "value_size", [0, 1, 8, SMALLEST - 8, SMALLEST - 1, LARGEST + 1, LARGEST + 8, 0xFFFFFFFF]
)
def test_map_create_with_value_size_out_of_range_is_einval(
    flowmap_loaded: str, value_size: int
) -> None:
    """A size below the first version's or beyond the current one gives EINVAL."""
    assert errno_of(lambda: bpf.flowmap_create(value_size=value_size)) == errno.EINVAL
    assert modules.refcount(flowmap_loaded) == 0


def _assert_prefixes_are_equal(fds: dict[int, int], flow: Flow) -> None:
    """Require that every map's value is the start of the longest map's value."""
    for key in flow.keys:
        raw = bytes(key)
        whole = bpf.lookup_raw(fds[LARGEST], raw, LARGEST)
        for size, fd in fds.items():
            assert bpf.lookup_raw(fd, raw, size) == whole[:size], size


@pytest.mark.clause("FM-13.2")
@each_version
@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
def test_shorter_value_is_start_of_longer_value(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    protocol: int,
    version: int,
) -> None:
    """Maps of every size give the same value, as far as it goes, in both directions."""
    fds = {size: make_flowmap(router.namespace, value_size=size) for size in SIZES}
    flow = open_connection(protocol, version).wait_offloaded()
    _assert_prefixes_are_equal(fds, flow)
    later = {size: make_flowmap(router.namespace, value_size=size) for size in SIZES}
    _assert_prefixes_are_equal(later, flow)


@pytest.mark.flow_table_has("tunnels")
@pytest.mark.clause("FM-3.21", "FM-13.2")
@each_version
def test_tunnel_of_flow_is_in_long_value_only(
    private_router: Router, make_flowmap: MakeFlowmap, cleanup: ExitStack, version: int
) -> None:
    """Outer addresses of a tunnel are filled as far as the value goes.

    They are the fields behind the first version's size.
    """
    tunnelled = ipip.add_tunnel(private_router, version)
    flow = connect(tunnelled, IPPROTO_UDP, version, cleanup).wait_offloaded()
    fds = {size: make_flowmap(private_router.namespace, value_size=size) for size in SIZES}
    _assert_prefixes_are_equal(fds, flow)
    value = bpf.lookup(fds[LARGEST], flow.original)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    assert value.tun_l4proto == uapi.TUNNEL_PROTOCOLS[family]
    assert any(value.tun_src)
    assert any(value.tun_dst)


@pytest.mark.clause("FM-6.3", "FM-13.2", "FM-13.3")
@each_size
def test_lookup_writes_no_more_than_value_size(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, value_size: int
) -> None:
    """BPF_MAP_LOOKUP_ELEM and BPF_MAP_LOOKUP_BATCH write ``value_size`` octets for each value."""
    fd = make_flowmap(router.namespace, value_size=value_size)
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    pairs, _, ended = bpf.lookup_batch(fd, 4, value_size=value_size)
    assert ended
    by_key = {bytes(key): bytes(value)[:value_size] for key, value in pairs}
    single = {bytes(key): bpf.lookup_raw(fd, bytes(key), value_size) for key in flow.keys}
    assert by_key == single
    buffer = ctypes.create_string_buffer(bytes([_GUARD]) * (value_size + _GUARD_OCTETS))
    attr = MapElemAttr(
        map_fd=fd, key=bpf.user_pointer(flow.original), value=bpf.user_pointer(buffer)
    )
    bpf.bpf(Command.MAP_LOOKUP_ELEM, attr)
    written, guard = buffer.raw[:value_size], buffer.raw[value_size : value_size + _GUARD_OCTETS]
    assert written == single[bytes(flow.original)]
    assert guard == bytes([_GUARD]) * _GUARD_OCTETS


@pytest.mark.clause("FM-13.2", "FM-13.3")
def test_prog_reads_no_further_than_value_size(
    make_flowmap: MakeFlowmap, load_bpf: LoadBpf
) -> None:
    """A program of the first version loads with every map; one that reads on needs a longer value.

    The verifier refuses a read behind the map's value with EACCES.
    """
    for size in SIZES:
        fd = make_flowmap(value_size=size)
        load_bpf("lookup_probe", fd, "by_xdp_ver0")
        if size == LARGEST:
            load_bpf("lookup_probe", fd, "by_xdp")
            continue
        with pytest.raises(LoadError) as rejection:
            load_bpf("lookup_probe", fd, "by_xdp")
        assert rejection.value.errno == errno.EACCES
        assert "invalid access to map value" in str(rejection.value)
