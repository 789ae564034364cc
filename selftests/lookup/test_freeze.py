# SPDX-License-Identifier: GPL-2.0-only
"""BPF_MAP_FREEZE of a flow map has one errno, whatever the descriptor and the map are like."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpf_attr import F_RDONLY, F_RDONLY_PROG, F_WRONLY
from fixtures.guest.bpf.btf_builder import BtfBuilder
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP

# The kernel's internal ENOTSUPP: bpf(2) returns it for operations that a map type lacks.
_ENOTSUPP = 524


def _freeze(fd: int) -> int:
    try:
        bpf.freeze(fd)
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.clause("FM-7.2", "FM-7.5", "FM-1.7")
def test_freeze_of_flow_map_has_one_errno(
    router: Router,
    open_connection: OpenConnection,
    make_flowmap: MakeFlowmap,
    load_bpf: LoadBpf,
    bpffs: Path,
    cleanup: ExitStack,
) -> None:
    """Freezing fails with the same errno by each descriptor, and for each kind of map.

    Afterwards each map finds the flow as before, and is not frozen: it is still accepted by a
    program, which may only read in any case.
    """
    types = BtfBuilder()
    key_type = types.add_struct_of_bytes("any_key", uapi.KEY_SIZE)
    value_type = types.add_struct_of_bytes("any_value", uapi.VALUE_SIZE)
    types_fd = types.load()
    cleanup.callback(os.close, types_fd)
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    maps = {
        "plain": make_flowmap(router.namespace),
        "read-only": make_flowmap(router.namespace, map_flags=F_RDONLY_PROG | F_RDONLY),
        "write-only": make_flowmap(router.namespace, map_flags=F_RDONLY_PROG | F_WRONLY),
        "passive": make_flowmap(router.namespace, map_extra=uapi.PASSIVE),
        "version 0": make_flowmap(router.namespace, value_size=uapi.VALUE_SIZE_VER0),
        "with types": make_flowmap(
            router.namespace,
            btf_fd=types_fd,
            btf_key_type_id=key_type,
            btf_value_type_id=value_type,
        ),
    }
    for name, fd in maps.items():
        path = bpffs / name.replace(" ", "-")
        bpf.pin(fd, str(path))
        descriptors = {"its own": fd, "of its pin": bpf.get_pinned(str(path))}
        path.unlink()
        map_id = bpf.map_info(fd).id
        for flags in (0, F_RDONLY, F_WRONLY):
            descriptors[f"by id, flags {flags:#x}"] = bpf.map_fd_by_id(map_id, flags)
        for how, descriptor in descriptors.items():
            for _ in range(2):
                assert _freeze(descriptor) == _ENOTSUPP, f"{name}: descriptor {how}"
        for how, descriptor in descriptors.items():
            if how != "its own":
                os.close(descriptor)
        assert bpf.fdinfo(fd)["frozen"] == "0", name
        reader = bpf.map_fd_by_id(map_id)
        cleanup.callback(os.close, reader)
        raw = bpf.lookup_raw(reader, bytes(flow.original), bpf.map_info(fd).value_size)
        assert uapi.value_from_bytes(raw).ct_id == flow.entry.ct_id, name
        program = "by_xdp_ver0" if name == "version 0" else "by_xdp"
        load_bpf("lookup_probe", fd, program)
    assert bpf.flowmap_entry_count(maps["plain"]) == 1


@pytest.mark.shared_vm
@pytest.mark.clause("MM-8.1", "FM-7.2")
@pytest.mark.usefixtures("flowmap_loaded")
def test_freeze_of_builtin_map_is_as_before() -> None:
    """A hash map can be frozen once, and not by a read-only descriptor (EPERM for both)."""
    with bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 1)) as fd:
        with bpf.closing_fd(bpf.map_fd_by_id(bpf.map_info(fd).id, F_RDONLY)) as read_only:
            assert _freeze(read_only) == errno.EPERM
        assert _freeze(fd) == 0
        assert bpf.fdinfo(fd)["frozen"] == "1"
        # A frozen map grants no descriptor write access any more.
        assert _freeze(fd) == errno.EPERM
