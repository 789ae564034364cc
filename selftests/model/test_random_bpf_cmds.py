# SPDX-License-Identifier: GPL-2.0-only
"""Random arguments for every map command: documented errno, and an unchanged map."""

import ctypes
import errno
import os
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.runtime.hypothesis_support import mostly_default
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_UDP, Flow
from selftests.model import bpf_cmds_oracle
from selftests.model.bpf_cmds_oracle import BatchRequest, ElemRequest, Fd, Key, Request, UserPointer

EXAMPLES = 120

_UNMAPPED_ADDRESS = 0xDEAD0000
_UNUSED_FD = 0x7FFFFFFF
_MAX_COUNT = max(bpf_cmds_oracle.BATCH_COUNTS)


def _elem_request(command: bpf_attr.Command) -> st.SearchStrategy[Request]:
    """Draw a request for a command on one element."""
    fields = bpf_cmds_oracle.USED_FIELD_COUNT[command]
    return st.builds(
        ElemRequest,
        command=st.just(command),
        fd=mostly_default(Fd.MAP, Fd, 3),
        key=st.sampled_from(Key) if fields else mostly_default(Key.NULL, Key, 4),
        value=mostly_default(UserPointer.VALID if fields > 1 else UserPointer.NULL, UserPointer, 4),
        flags=mostly_default(0, bpf_cmds_oracle.FLAG_VALUES, 4),
        nonzero_tail=mostly_default(False, [True], 10),
    )


REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.sampled_from(bpf_cmds_oracle.ELEM_CMDS).flatmap(_elem_request),
    st.builds(
        BatchRequest,
        command=mostly_default(bpf_attr.Command.MAP_LOOKUP_BATCH, bpf_cmds_oracle.BATCH_CMDS, 1),
        fd=mostly_default(Fd.MAP, Fd, 3),
        in_batch=st.sampled_from(Key),
        keys=mostly_default(UserPointer.VALID, UserPointer, 4),
        values=mostly_default(UserPointer.VALID, UserPointer, 4),
        out_batch=mostly_default(UserPointer.VALID, UserPointer, 4),
        count=st.sampled_from(bpf_cmds_oracle.BATCH_COUNTS),
        flags=mostly_default(0, bpf_cmds_oracle.FLAG_VALUES, 4),
        batch_flags=mostly_default(0, bpf_cmds_oracle.FLAG_VALUES, 4),
        nonzero_tail=mostly_default(False, [True], 10),
    ),
)


class _AttrBuffer(ctypes.Structure):
    """Memory for any command's attributes and one word behind them."""

    _fields_ = (("words", ctypes.c_uint64 * 16),)


class SyscallRunner:
    """Run the bpf(2) calls that requests describe."""

    def __init__(self, flow: Flow, fds: dict[Fd, int]) -> None:
        unknown = uapi.Key(l3proto=2)
        reserved = uapi.Key.from_buffer_copy(flow.original)
        reserved.reserved[0] = 1
        no_l3proto = uapi.Key.from_buffer_copy(flow.original)
        no_l3proto.l3proto = 0
        self._keys = {
            Key.ORIGINAL: flow.original,
            Key.REPLY: flow.reply,
            Key.UNKNOWN: unknown,
            Key.RESERVED: reserved,
            Key.NO_L3PROTO: no_l3proto,
        }
        self._fds = fds
        # Each is large enough for the largest batch: keys, values, and the batch cursor.
        self._buffers = [(ctypes.c_ubyte * (_MAX_COUNT * uapi.VALUE_SIZE))() for _ in range(3)]

    def identify(self, key: bytes) -> Key:
        """Return which of the known keys this is."""
        return next(name for name, known in self._keys.items() if bytes(known) == key)

    def _key_address(self, key: Key) -> int:
        """Return the user address of a key."""
        if key.readable:
            return ctypes.addressof(self._keys[key])
        return _UNMAPPED_ADDRESS if key is Key.UNMAPPED else 0

    def _address(self, memory: UserPointer, index: int) -> int:
        """Return the user address of the buffer with this index."""
        addresses = {
            UserPointer.VALID: ctypes.addressof(self._buffers[index]),
            UserPointer.UNMAPPED: _UNMAPPED_ADDRESS,
        }
        return addresses.get(memory, 0)

    def call(self, request: Request) -> tuple[int, list[Key]]:
        """Run a request; return its errno, or 0, and the keys that were copied out."""
        attr: bpf_attr.MapElemAttr | bpf_attr.MapBatchAttr
        if isinstance(request, ElemRequest):
            attr = bpf_attr.MapElemAttr(
                map_fd=self._fds[request.fd],
                key=self._key_address(request.key),
                value=self._address(request.value, 0),
                flags=request.flags,
            )
        else:
            attr = bpf_attr.MapBatchAttr(
                in_batch=self._key_address(request.in_batch),
                keys=self._address(request.keys, 0),
                values=self._address(request.values, 1),
                out_batch=self._address(request.out_batch, 2),
                count=request.count,
                map_fd=self._fds[request.fd],
                elem_flags=request.flags,
                flags=request.batch_flags,
            )
        attr_buffer = _AttrBuffer()
        ctypes.memmove(attr_buffer.words, ctypes.addressof(attr), ctypes.sizeof(attr))
        attr_buffer.words[ctypes.sizeof(attr) // 8] = request.nonzero_tail
        code = 0
        try:
            bpf.bpf(request.command, attr_buffer)
        except OSError as error:
            code = error.errno or -1
        count = 0
        if request.command is bpf_attr.Command.MAP_GET_NEXT_KEY:
            count = int(not code)
        elif request.command is bpf_attr.Command.MAP_LOOKUP_BATCH and code in (0, errno.ENOENT):
            count = bpf_attr.MapBatchAttr.from_buffer_copy(attr_buffer).count
        copied, size = bytes(self._buffers[0]), uapi.KEY_SIZE
        return code, [
            self.identify(copied[index * size : (index + 1) * size]) for index in range(count)
        ]


def _positions(runner: SyscallRunner, fd: int) -> list[Key]:
    """Return the keys in the map in iteration order, with `Key.UNKNOWN` at its position."""
    keys = [runner.identify(bytes(key)) for key in bpf.iterate_keys(fd)]
    code, following = runner.call(ElemRequest(bpf_attr.Command.MAP_GET_NEXT_KEY, key=Key.UNKNOWN))
    assert code == (0 if following else errno.ENOENT)
    keys.insert(keys.index(following[0]) if following else len(keys), Key.UNKNOWN)
    return keys


@pytest.mark.clause("FM-5.2", "FM-6.3", "FM-6.8", "FM-6.9", "FM-7.1", "FM-7.2", "FM-7.4", "FM-7.5")
@pytest.mark.soak
@pytest.mark.deadline(120)
def test_random_map_cmds_return_documented_errno(
    private_router: Router,
    private_flowmap: int,
    open_private_connection: OpenConnection,
    cleanup: ExitStack,
) -> None:
    """Random map commands return the oracle's errno and keys, and change nothing.

    Afterwards the flow's values and their order are the same, and the map's module reference
    is the only one.
    """
    netns.set_sysctls(private_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    flow = open_private_connection(IPPROTO_UDP, 4).wait_offloaded()
    map_id = bpf.map_info(private_flowmap).id
    fds = {Fd.MAP: private_flowmap, Fd.BAD_FD: _UNUSED_FD, Fd.OTHER_FILE: os.open("/", os.O_RDONLY)}
    fds[Fd.MAP_RDONLY] = bpf.map_fd_by_id(map_id, bpf_attr.F_RDONLY)
    fds[Fd.MAP_WRONLY] = bpf.map_fd_by_id(map_id, bpf_attr.F_WRONLY)
    for which in (Fd.OTHER_FILE, Fd.MAP_RDONLY, Fd.MAP_WRONLY):
        cleanup.callback(os.close, fds[which])
    runner = SyscallRunner(flow, fds)
    positions = _positions(runner, private_flowmap)
    assert sorted(positions) == sorted((Key.ORIGINAL, Key.REPLY, Key.UNKNOWN))
    before = [bytes(bpf.lookup(private_flowmap, key))[8:] for key in flow.keys]

    def check(request: Request) -> None:
        code, keys = runner.call(request)
        assert code == bpf_cmds_oracle.expected_errno(request, positions)
        assert keys == bpf_cmds_oracle.expected_keys(request, positions)

    hypothesis_support.run_examples(check, EXAMPLES, request=REQUESTS)
    # Without the first field, the expiry, which may change.
    assert [bytes(bpf.lookup(private_flowmap, key))[8:] for key in flow.keys] == before
    assert _positions(runner, private_flowmap) == positions
    assert modules.refcount(modules.FLOWMAP_MODULE) == 1
