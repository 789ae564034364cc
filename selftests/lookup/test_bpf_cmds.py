# SPDX-License-Identifier: GPL-2.0-only
"""Every bpf(2) command on a flow map, and which programs the verifier accepts with one."""

import errno
import mmap
import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject, LoadError
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap, OpenConnection
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow

MapCmd = Callable[[int, uapi.Key], object]


def _mmap(flags: int, protection: int, fd: int, _: uapi.Key) -> object:
    return mmap.mmap(fd, mmap.PAGESIZE, flags, protection)


# The kernel's internal ENOTSUPP: bpf(2) returns it for operations that a map type lacks.
_ENOTSUPP = 524

# Each command with its errno (docs/series.md).
MODIFYING_CMDS: dict[str, tuple[MapCmd, int]] = {
    "update-any": (lambda fd, key: bpf.update(fd, key, uapi.Value()), errno.EOPNOTSUPP),
    "update-noexist": (lambda fd, key: bpf.update(fd, key, uapi.Value(), 1), errno.EOPNOTSUPP),
    "update-exist": (lambda fd, key: bpf.update(fd, key, uapi.Value(), 2), errno.EOPNOTSUPP),
    "delete": (bpf.delete, errno.EOPNOTSUPP),
    "lookup-and-delete": (bpf.lookup_and_delete, _ENOTSUPP),
    "update-batch": (
        lambda fd, _: bpf.lookup_batch(fd, 1, None, bpf_attr.Command.MAP_UPDATE_BATCH),
        _ENOTSUPP,
    ),
    "delete-batch": (
        lambda fd, _: bpf.lookup_batch(fd, 1, None, bpf_attr.Command.MAP_DELETE_BATCH),
        _ENOTSUPP,
    ),
    "lookup-and-delete-batch": (
        lambda fd, _: bpf.lookup_batch(fd, 1, None, bpf_attr.Command.MAP_LOOKUP_AND_DELETE_BATCH),
        _ENOTSUPP,
    ),
    "freeze": (lambda fd, _: bpf.freeze(fd), _ENOTSUPP),
    "mmap": (partial(_mmap, mmap.MAP_SHARED, mmap.PROT_READ), _ENOTSUPP),
    "mmap-shared-write": (
        partial(_mmap, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        _ENOTSUPP,
    ),
    "mmap-private": (partial(_mmap, mmap.MAP_PRIVATE, mmap.PROT_READ), _ENOTSUPP),
}


@pytest.mark.clause("FM-7.1", "FM-7.2", "FM-7.3", "FM-7.4", "FM-7.5", "V0-1")
@pytest.mark.parametrize(("modify", "expected_errno"), MODIFYING_CMDS.values(), ids=MODIFYING_CMDS)
def test_modifying_cmd_fails_and_changes_nothing(
    flowmap: int, open_connection: OpenConnection, modify: MapCmd, expected_errno: int
) -> None:
    """A modifying command fails with its errno for every key and does not change the flow."""
    flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    before = [bytes(bpf.lookup(flowmap, key))[8:] for key in flow.keys]

    errnos = set()
    for key in (flow.original, uapi.Key()):
        try:
            modify(flowmap, key)
        except OSError as error:
            errnos.add(error.errno)
        else:
            errnos.add(0)

    assert errnos == {expected_errno}
    # Without the first field, the expiry, which lookups may refresh.
    assert [bytes(bpf.lookup(flowmap, key))[8:] for key in flow.keys] == before


@pytest.mark.clause("FM-7.4")
def test_poll_of_map_is_pollerr(flowmap: int, open_connection: OpenConnection) -> None:
    """poll() of a map's descriptor returns at once with POLLERR, with and without a flow."""
    wanted = select.POLLIN | select.POLLOUT | select.POLLPRI
    for _ in range(2):
        poll = select.poll()
        poll.register(flowmap, wanted)
        assert poll.poll(0) == [(flowmap, select.POLLERR)]
        flow = open_connection(IPPROTO_UDP, 4).wait_offloaded()
    assert bpf.lookup(flowmap, flow.original).dir == 0


@pytest.mark.clause("FM-7.4")
@pytest.mark.parametrize("flags", [1, 2, 4, 8, 1 << 63], ids=hex)
def test_lookup_with_flags_returns_einval(flowmap: int, flags: int) -> None:
    """BPF_MAP_LOOKUP_ELEM with any flag returns EINVAL."""
    with expect_errno(errno.EINVAL):
        bpf.lookup(flowmap, uapi.Key(l3proto=2), flags)


def _offload_flows(connection: OpenConnection, count: int) -> list[Flow]:
    """Offload ``count`` UDP connections, alternating IPv6 and IPv4."""
    return [
        connection(IPPROTO_UDP, 4 if port % 2 else 6, server_port=7100 + port).wait_offloaded()
        for port in range(count)
    ]


@pytest.mark.clause("FM-6.1", "V0-2")
def test_get_next_key_visits_each_key_once(flowmap: int, open_connection: OpenConnection) -> None:
    """BPF_MAP_GET_NEXT_KEY visits each key of five flows once and ends."""
    expected = sorted(
        bytes(key) for flow in _offload_flows(open_connection, 5) for key in flow.keys
    )
    assert sorted(bytes(key) for key in bpf.iterate_keys(flowmap, limit=100)) == expected


@pytest.mark.clause("FM-6.2", "V0-2")
def test_get_next_key_on_empty_map_returns_enoent(flowmap: int) -> None:
    """BPF_MAP_GET_NEXT_KEY on an empty map returns ENOENT, with and without a key."""
    with pytest.raises(FileNotFoundError):
        bpf.next_key(flowmap, None)
    with pytest.raises(FileNotFoundError):
        bpf.next_key(flowmap, uapi.Key(l3proto=2))


@pytest.mark.clause("FM-6.3")
@pytest.mark.parametrize("size", [1, 3, 64], ids="batch-size-{}".format)
def test_lookup_batch_visits_each_entry_once(
    flowmap: int, open_connection: OpenConnection, size: int
) -> None:
    """BPF_MAP_LOOKUP_BATCH visits each entry of four flows once, for every batch size."""
    expected = sorted(
        bytes(key) for flow in _offload_flows(open_connection, 4) for key in flow.keys
    )
    seen: list[bytes] = []
    cursor, ended = None, False
    while not ended:
        pairs, cursor, ended = bpf.lookup_batch(flowmap, size, cursor)
        seen += [bytes(key) for key, _ in pairs]
        assert len(seen) <= len(expected), "BPF_MAP_LOOKUP_BATCH does not end"
    assert sorted(seen) == expected


@pytest.mark.clause("MM-9.1")
def test_prog_with_lookup_only_loads(make_flowmap: MakeFlowmap, load_bpf: LoadBpf) -> None:
    """A program that calls only bpf_map_lookup_elem() loads: control for the rejections."""
    load_bpf("verifier_reject", make_flowmap(), "allowed")


_BAD_MAP_TYPE = "cannot pass map_type {} into func {}#"
_READ_ONLY_MAP = "write into map forbidden"
# The verifier's first reason: the map's flags, its missing operations, or its type.
REJECTED_HELPERS = {
    "update": (errno.EACCES, _READ_ONLY_MAP, ""),
    "delete": (errno.EACCES, _READ_ONLY_MAP, ""),
    "push": (errno.EACCES, _READ_ONLY_MAP, ""),
    "for_each": (_ENOTSUPP, "callback function not allowed for map", ""),
    "redirect": (errno.EINVAL, _BAD_MAP_TYPE, "bpf_redirect_map"),
    "lookup_percpu": (errno.EINVAL, _BAD_MAP_TYPE, "bpf_map_lookup_percpu_elem"),
}


@pytest.mark.clause("MM-9.1", "FM-8.1")
@pytest.mark.parametrize("prog", REJECTED_HELPERS)
def test_prog_with_other_map_helper_is_rejected(make_flowmap: MakeFlowmap, prog: str) -> None:
    """The verifier rejects every other map helper, and its message names the reason."""
    code, message, helper = REJECTED_HELPERS[prog]
    with pytest.raises(LoadError) as rejection:
        BpfObject("verifier_reject", {"flows": make_flowmap()}, (prog,))
    assert rejection.value.errno == code
    assert message.format(bpf.flowmap_type(), helper) in str(rejection.value)


@pytest.mark.clause("MM-9.3", "FM-8.1", "V0-8")
@pytest.mark.parametrize(
    ("prog", "message"),
    [
        ("write_value", "write into map forbidden"),
        ("read_past_end", "invalid access to map value"),
    ],
    ids=["write-value", "read-past-end"],
)
def test_prog_with_invalid_value_access_is_rejected(
    make_flowmap: MakeFlowmap, prog: str, message: str
) -> None:
    """The verifier rejects a write to the value and a read past its end with EACCES."""
    with pytest.raises(LoadError) as rejection:
        BpfObject("verifier_reject", {"flows": make_flowmap()}, (prog,))
    assert rejection.value.errno == errno.EACCES
    assert message in str(rejection.value)


@pytest.mark.clause("MM-9.2", "MM-9.8")
def test_sleepable_prog_with_lookup_is_rejected(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """The verifier rejects lookups in sleepable programs, directly and through an outer map."""
    flowmap = make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=flowmap)
    cleanup.callback(os.close, outer)
    maps = {"flows": flowmap, "outer": outer}
    # Control: the same lookup in a non-sleepable program must load.
    BpfObject("sleepable_lookup", maps, ("inner_map_xdp",)).close()
    for program, message in (
        ("flowmap_sleepable", "Sleepable programs can only use"),
        (
            "inner_map_sleepable",
            f"map_type {bpf.flowmap_type()} cannot be used where the program may sleep",
        ),
    ):
        with pytest.raises(LoadError) as rejection:
            BpfObject("sleepable_lookup", maps, (program,))
        assert rejection.value.errno == errno.EINVAL
        assert message in str(rejection.value)
