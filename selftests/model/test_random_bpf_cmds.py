# SPDX-License-Identifier: GPL-2.0-only
"""Random arguments for every map command: the errno of the documentation, and nothing changes."""

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
from fixtures.guest.pytest_plugin.fixtures import Connect
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.runtime.hypothesis_support import mostly
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Flow
from selftests.model import bpf_cmds_oracle
from selftests.model.bpf_cmds_oracle import Fd, Key, Memory, OnBatch, OnElement, Request

EXAMPLES = 120

_UNMAPPED = 0xDEAD0000
_NO_SUCH_FD = 0x7FFFFFFF
_MOST = max(bpf_cmds_oracle.COUNTS)


def _on_element(command: bpf_attr.Command) -> st.SearchStrategy[Request]:
    fields = bpf_cmds_oracle.FIELDS[command]
    return st.builds(
        OnElement,
        command=st.just(command),
        fd=mostly(Fd.MAP, Fd, 3),
        key=st.sampled_from(Key) if fields else mostly(Key.NULL, Key, 4),
        value=mostly(Memory.ROOM if fields > 1 else Memory.NULL, Memory, 4),
        flags=mostly(0, bpf_cmds_oracle.FLAGS, 4),
        stray=mostly(False, [True], 10),
    )


REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.sampled_from(bpf_cmds_oracle.ELEMENT).flatmap(_on_element),
    st.builds(
        OnBatch,
        command=mostly(bpf_attr.Command.MAP_LOOKUP_BATCH, bpf_cmds_oracle.BATCH, 1),
        fd=mostly(Fd.MAP, Fd, 3),
        start=st.sampled_from(Key),
        keys=mostly(Memory.ROOM, Memory, 4),
        values=mostly(Memory.ROOM, Memory, 4),
        end=mostly(Memory.ROOM, Memory, 4),
        count=st.sampled_from(bpf_cmds_oracle.COUNTS),
        flags=mostly(0, bpf_cmds_oracle.FLAGS, 4),
        batch_flags=mostly(0, bpf_cmds_oracle.FLAGS, 4),
        stray=mostly(False, [True], 10),
    ),
)


class _Block(ctypes.Structure):
    """Room for any command's attributes and one word behind them."""

    _fields_ = (("words", ctypes.c_uint64 * 16),)


class Caller:
    """Makes the system calls that requests describe, and looks at what comes back."""

    def __init__(self, flow: Flow, fds: dict[Fd, int]) -> None:
        unknown = uapi.Key(l3proto=2)
        reserved = uapi.Key.from_buffer_copy(flow.original)
        reserved.reserved = 1
        self._keys = {
            Key.ORIGINAL: flow.original,
            Key.REPLY: flow.reply,
            Key.UNKNOWN: unknown,
            Key.RESERVED: reserved,
        }
        self._fds = fds
        # As large as the largest batch asks for: keys, values, and where a batch ended.
        self._room = [(ctypes.c_ubyte * (_MOST * uapi.VALUE_SIZE))() for _ in range(3)]

    def name(self, key: bytes) -> Key:
        """Which of ours a key is."""
        return next(name for name, known in self._keys.items() if bytes(known) == key)

    def _key(self, key: Key) -> int:
        if key.readable:
            return ctypes.addressof(self._keys[key])
        return _UNMAPPED if key is Key.UNMAPPED else 0

    def _memory(self, memory: Memory, place: int) -> int:
        known = {Memory.ROOM: ctypes.addressof(self._room[place]), Memory.UNMAPPED: _UNMAPPED}
        return known.get(memory, 0)

    def call(self, request: Request) -> tuple[int, list[Key]]:
        """The errno, or 0, and the keys that were handed out."""
        attr: bpf_attr.Element | bpf_attr.Batch
        if isinstance(request, OnElement):
            attr = bpf_attr.Element(
                map_fd=self._fds[request.fd],
                key=self._key(request.key),
                value=self._memory(request.value, 0),
                flags=request.flags,
            )
        else:
            attr = bpf_attr.Batch(
                in_batch=self._key(request.start),
                keys=self._memory(request.keys, 0),
                values=self._memory(request.values, 1),
                out_batch=self._memory(request.end, 2),
                count=request.count,
                map_fd=self._fds[request.fd],
                elem_flags=request.flags,
                flags=request.batch_flags,
            )
        block = _Block()
        ctypes.memmove(block.words, ctypes.addressof(attr), ctypes.sizeof(attr))
        block.words[ctypes.sizeof(attr) // 8] = request.stray
        code = 0
        try:
            bpf.bpf(request.command, block)
        except OSError as error:
            code = error.errno or -1
        count = 0
        if request.command is bpf_attr.Command.MAP_GET_NEXT_KEY:
            count = int(not code)
        elif request.command is bpf_attr.Command.MAP_LOOKUP_BATCH and code in (0, errno.ENOENT):
            count = bpf_attr.Batch.from_buffer_copy(block).count
        given, size = bytes(self._room[0]), uapi.KEY_SIZE
        return code, [self.name(given[at * size : (at + 1) * size]) for at in range(count)]


@pytest.mark.clause("FM-6", "FM-7", "FM-5", "MM-5")
@pytest.mark.campaign
@pytest.mark.deadline(120)
def test_any_arguments_have_the_errno_of_the_documentation(
    own_router: Router, own_flowmap: int, own_connection: Connect, cleanup: ExitStack
) -> None:
    netns.set_sysctls(own_router.namespace, {"netfilter/nf_flowtable_udp_timeout": 3600})
    flow = own_connection(UDP_PROTOCOL, 4).offloaded()
    identity = bpf.map_info(own_flowmap).id
    fds = {Fd.MAP: own_flowmap, Fd.NOTHING: _NO_SUCH_FD, Fd.FILE: os.open("/", os.O_RDONLY)}
    fds[Fd.READER] = bpf.map_by_id(identity, bpf_attr.F_RDONLY)
    fds[Fd.WRITER] = bpf.map_by_id(identity, bpf_attr.F_WRONLY)
    for which in (Fd.FILE, Fd.READER, Fd.WRITER):
        cleanup.callback(os.close, fds[which])
    caller = Caller(flow, fds)
    order = [caller.name(bytes(key)) for key in bpf.keys(own_flowmap)]
    before = [bytes(bpf.lookup(own_flowmap, key))[8:] for key in flow.keys]

    def attempt(request: Request) -> None:
        code, keys = caller.call(request)
        assert code == bpf_cmds_oracle.answer(request, order)
        assert keys == bpf_cmds_oracle.handed_out(request, order)

    hypothesis_support.explore(attempt, EXAMPLES, request=REQUESTS)
    # All but the expiry, which may move.
    assert [bytes(bpf.lookup(own_flowmap, key))[8:] for key in flow.keys] == before
    assert [caller.name(bytes(key)) for key in bpf.keys(own_flowmap)] == order
    assert modules.references(modules.FLOWMAP) == 1
