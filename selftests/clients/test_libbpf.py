# SPDX-License-Identifier: GPL-2.0-only
"""libbpf as applications use it: probe, maps of an object, pinning by name, maps of maps."""

import errno
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import LoadError
from fixtures.guest.bpf.libbpf_skeleton import Skeleton
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import Flow
from selftests.clients.client_parts import (
    DISTRIBUTION,
    TREE,
    each_origin,
    flow_keys,
    libbpf_of,
    offload_flows,
    read_pairs,
)

_OBJECT = "client_skeleton"
_PROGRAM = "look_up_in_all"
_PINNED = "pinned_flows"
_MAX_ENTRIES = 2048
_FLOWMAPS = ("flows", "pinned_flows", "outer")
"""The object's maps in the order of the program's results; the last one holds a flow map."""
_RESULT = struct.Struct(f"=II{uapi.VALUE_SIZE}s")
_FRAME = bytes(64)


def _load(
    origin: str,
    router: Router,
    pin_root: Path,
    cleanup: ExitStack,
    max_entries: dict[str, int] | None = None,
) -> Skeleton:
    """Load the object in the router's namespace; ``cleanup`` closes it."""
    with netns.entered(router.namespace):
        loaded = Skeleton(libbpf_of(origin), _OBJECT, pin_root, max_entries)
    cleanup.callback(loaded.close)
    return loaded


def _look_up_in_all(loaded: Skeleton, key: uapi.Key) -> list[bytes | None]:
    """Run the object's program for a key; return the value of each map, or None on a miss."""
    slot = struct.pack("=I", 0)
    bpf.update_raw(loaded.map_fd("lookup_key"), slot, bytes(key))
    assert prog_syscalls.run_on_packet(loaded.program_fd(_PROGRAM), _FRAME) == 2
    values: list[bytes | None] = []
    for number in range(len(_FLOWMAPS)):
        raw = bpf.lookup_raw(
            loaded.map_fd("lookup_results"), struct.pack("=I", number), _RESULT.size
        )
        hit, _, value = _RESULT.unpack(raw)
        values.append(value if hit else None)
    return values


def _without_expiry(values: Sequence[bytes | None]) -> list[bytes | None]:
    """Drop the first field, the expiry, which each lookup by a program may move."""
    return [value and value[8:] for value in values]


def _assert_reads_flows(fd: int, flows: Sequence[Flow]) -> None:
    assert {key for key, _ in read_pairs(fd)} == flow_keys(flows)


@pytest.mark.clause("FM-1.8", "FM-4.7")
@each_origin
def test_object_maps_are_created_and_read(
    router: Router,
    open_connection: OpenConnection,
    bpffs: Path,
    cleanup: ExitStack,
    origin: str,
) -> None:
    """libbpf creates an object's flow maps as declared, and its program finds flows in them."""
    loaded = _load(origin, router, bpffs, cleanup)
    flows = offload_flows(open_connection)
    for name in ("flows", _PINNED):
        info = bpf.map_info(loaded.map_fd(name))
        assert (info.type, info.key_size, info.value_size, info.max_entries, info.map_flags) == (
            bpf.flowmap_type(),
            uapi.KEY_SIZE,
            uapi.VALUE_SIZE,
            _MAX_ENTRIES,
            bpf_attr.F_RDONLY_PROG,
        )
        # The types of key and value are passed on, so that bpftool prints fields.
        assert info.btf_id > 0
        assert info.btf_key_type_id > 0
        assert info.btf_value_type_id > 0
        assert info.name.decode() == name
        _assert_reads_flows(loaded.map_fd(name), flows)
    assert loaded.is_pinned(_PINNED)
    assert not loaded.is_pinned("flows")
    for flow in flows:
        for key in flow.keys:
            plain, pinned, inner = _without_expiry(_look_up_in_all(loaded, key))
            assert plain == pinned == bytes(bpf.lookup(loaded.map_fd("flows"), key))[8:]
            assert inner is None, "the map of maps is empty"


@pytest.mark.clause("MM-4.2", "MM-10.1", "FM-2.1")
@each_origin
def test_map_pinned_by_name_is_reused(
    router: Router,
    open_connection: OpenConnection,
    bpffs: Path,
    cleanup: ExitStack,
    origin: str,
) -> None:
    """A second load of the object, by either libbpf, reuses the map that the first one pinned.

    The reused map has the flows from before.  The pin outlives both objects, and belongs to the
    namespace of the first load, wherever the next one happens.  Once the pin is removed, a load
    pins a new map.
    """
    flows = offload_flows(open_connection)
    first = _load(origin, router, bpffs, cleanup)
    first_id = bpf.map_info(first.map_fd(_PINNED)).id
    first_plain_id = bpf.map_info(first.map_fd("flows")).id
    for other in (origin, DISTRIBUTION):
        second = _load(other, router, bpffs, cleanup)
        assert bpf.map_info(second.map_fd(_PINNED)).id == first_id
        assert bpf.map_info(second.map_fd("flows")).id != first_plain_id
        assert second.is_pinned(_PINNED)
        _assert_reads_flows(second.map_fd(_PINNED), flows)
        second.close()
    first.close()

    # In this process's namespace, which has no flows.
    elsewhere = Skeleton(libbpf_of(origin), _OBJECT, bpffs)
    cleanup.callback(elsewhere.close)
    assert bpf.map_info(elsewhere.map_fd(_PINNED)).id == first_id
    _assert_reads_flows(elsewhere.map_fd(_PINNED), flows)
    _assert_reads_flows(elsewhere.map_fd("flows"), [])
    elsewhere.close()

    (bpffs / _PINNED).unlink()
    later = _load(origin, router, bpffs, cleanup)
    assert bpf.map_info(later.map_fd(_PINNED)).id != first_id
    assert (bpffs / _PINNED).exists()
    _assert_reads_flows(later.map_fd(_PINNED), flows)


@pytest.mark.clause("MM-10.1")
@each_origin
def test_pinned_map_of_other_capacity_is_not_reused(
    router: Router,
    open_connection: OpenConnection,
    bpffs: Path,
    cleanup: ExitStack,
    origin: str,
) -> None:
    """A load with another ``max_entries`` than the pinned map fails, and the pinned map stays.

    libbpf compares the attributes with BPF_OBJ_GET_INFO_BY_FD, so the map has to report what it
    was created with.  The failed load leaves no map behind.
    """
    flows = offload_flows(open_connection)
    first = _load(origin, router, bpffs, cleanup)
    _load(origin, router, bpffs, cleanup).close()
    pinned_id = bpf.map_info(first.map_fd(_PINNED)).id
    before = set(bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID))
    for keys in (2, _MAX_ENTRIES - 1, _MAX_ENTRIES + 1):
        with pytest.raises(LoadError, match="parameter mismatch") as refusal:
            _load(origin, router, bpffs, cleanup, {_PINNED: keys})
        assert refusal.value.errno == errno.EINVAL
    wait_for(
        "the maps of the failed loads to be freed",
        lambda: set(bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)) <= before,
    )
    first.close()
    again = _load(origin, router, bpffs, cleanup)
    assert bpf.map_info(again.map_fd(_PINNED)).id == pinned_id
    _assert_reads_flows(again.map_fd(_PINNED), flows)


@pytest.mark.clause("MM-4.5", "FM-4.7")
@each_origin
def test_inner_flowmaps_are_replaced_and_read(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    bpffs: Path,
    cleanup: ExitStack,
    origin: str,
) -> None:
    """A map of maps whose inner map is declared as a flow map takes flow maps, and gives flows.

    It takes one of another capacity, and one of another namespace, in which the lookup misses.  It
    refuses one with a shorter value than declared, and stays as it was.
    """
    loaded = _load(origin, router, bpffs, cleanup)
    flow = offload_flows(open_connection, 1)[0]
    outer, slot = loaded.map_fd("outer"), struct.pack("=I", 0)

    def put(fd: int) -> None:
        bpf.update_raw(outer, slot, struct.pack("=i", fd))

    foreign = make_flowmap()
    short = make_flowmap(router.namespace, value_size=uapi.VALUE_SIZE_VER0)
    for fd, found in ((loaded.map_fd("flows"), True), (foreign, False)):
        put(fd)
        stored = int.from_bytes(bpf.lookup_raw(outer, slot, 4), sys.byteorder)
        assert stored == bpf.map_info(fd).id
        for key in flow.keys:
            plain, _, inner = _without_expiry(_look_up_in_all(loaded, key))
            assert plain is not None
            assert inner == (plain if found else None)
        with pytest.raises(OSError, match="Invalid argument") as refusal:
            put(short)
        assert refusal.value.errno == errno.EINVAL
        assert int.from_bytes(bpf.lookup_raw(outer, slot, 4), sys.byteorder) == stored
    # The map of maps keeps its flow map alive when the last descriptor is closed.
    with bpf.open_flowmap(router.namespace, max_entries=2) as small:
        put(small)
        small_id = bpf.map_info(small).id
    with bpf.closing_fd(bpf.map_fd_by_id(small_id)) as fd:
        _assert_reads_flows(fd, [flow])


_PROBE_AVAILABLE, _PROBE_ABSENT = 1, 0


def _probe(origin: str) -> int:
    return int(libbpf_of(origin).lib.libbpf_probe_bpf_map_type(bpf.flowmap_type(), None))


@pytest.mark.clause("MM-3.2", "MM-3.3", "FM-1.9")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_libbpf_probe_of_tree_tells_whether_type_can_be_created() -> None:
    """``libbpf_probe_bpf_map_type()`` of the tree is 1 if the module can be loaded, otherwise 0.

    Asking loads the module.  It is 0 when the module is absent, and for a process without
    CAP_BPF, CAP_NET_ADMIN or both, which loads nothing.  No answer leaves a map behind.
    """

    def without(*capabilities: int) -> int:
        def probe() -> int:
            child_process.drop_capabilities_except(*capabilities)
            return _probe(TREE)

        return child_process.run_in_child(probe)

    module = modules.FLOWMAP_MODULE
    libbpf = libbpf_of(TREE)
    assert libbpf.lib.libbpf_bpf_map_type_str(bpf.flowmap_type()) == b"flowmap"
    with modules.autoload_disabled():
        assert _probe(TREE) == _PROBE_ABSENT
    insufficient = ((), (child_process.CAP_BPF,), (child_process.CAP_NET_ADMIN,))
    for capabilities in insufficient:
        assert without(*capabilities) == _PROBE_ABSENT, capabilities
        assert not modules.loaded(module), capabilities
    assert _probe(TREE) == _PROBE_AVAILABLE
    assert modules.loaded(module)
    modules.wait_until_unreferenced(module)
    assert without(child_process.CAP_BPF, child_process.CAP_NET_ADMIN) == _PROBE_AVAILABLE
    for capabilities in insufficient:
        assert without(*capabilities) == _PROBE_ABSENT, capabilities
    modules.wait_until_unreferenced(module)
    modules.unload(module)
    with modules.autoload_disabled():
        assert _probe(TREE) == _PROBE_ABSENT


@pytest.mark.clause("MM-3.3")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_libbpf_probe_of_distribution_does_not_know_type() -> None:
    """A libbpf that is older than the type says so (EOPNOTSUPP), or creates a map and says 1.

    It never says that the kernel lacks the type.
    """
    answer = _probe(DISTRIBUTION)
    assert answer in (-errno.EOPNOTSUPP, _PROBE_AVAILABLE)
    assert modules.loaded(modules.FLOWMAP_MODULE) == (answer == _PROBE_AVAILABLE)
