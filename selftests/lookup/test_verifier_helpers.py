# SPDX-License-Identifier: GPL-2.0-only
"""Programs that pass a flow map, or the value of one, to something other than a lookup.

One test loads many programs, each by itself: all of them share one map, which has to be as usable
and as empty afterwards as before.
"""

import ctypes
import errno
import os
import struct
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject, LoadError
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.kernel import modules
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

_SLOT = bytes(4)
_READ_ONLY = "write into map forbidden"
_NO_PROG_ARRAY = "expected prog array map for tail call"
_TRACE_ITER = 28
"""BPF_TRACE_ITER of ``enum bpf_attach_type``."""


def _refusal(name: str, maps: dict[str, int], program: str) -> tuple[int, str]:
    """Return errno and log of a program's refusal; errno 0 and no log if it was loaded."""
    try:
        BpfObject(name, maps, (program,)).close()
    except LoadError as error:
        return error.errno or -1, str(error)
    return 0, ""


def _helpers_maps(flowmap: int, cleanup: ExitStack) -> dict[str, int]:
    """Return the maps of selftests/bpf/verifier_helpers.bpf.c; the outer maps hold the flow map."""
    maps = {"flows": flowmap}
    for name, map_type in (
        ("outer", bpf_attr.MAP_TYPE_HASH_OF_MAPS),
        ("outer_array", bpf_attr.MAP_TYPE_ARRAY_OF_MAPS),
    ):
        maps[name] = bpf.map_create(map_type, 4, 4, 1, inner_map_fd=flowmap)
        cleanup.callback(os.close, maps[name])
        bpf.update_raw(maps[name], _SLOT, struct.pack("=I", flowmap))
    return maps


_BAD_TYPE = "cannot pass map_type {} into func bpf_{}#"
# By program: the errno, and the helper that the verifier names, or its message.
REFUSED_HELPERS = {
    "pop": (errno.EACCES, _READ_ONLY),
    "peek": (errno.EINVAL, "map_peek_elem"),
    "tail_call": (errno.EINVAL, _NO_PROG_ARRAY),
    "tail_call_by_tc": (errno.EINVAL, _NO_PROG_ARRAY),
    "perf_event_output": (errno.EINVAL, "perf_event_output"),
    "perf_event_read": (errno.EINVAL, "perf_event_read"),
    "get_stackid": (errno.EINVAL, "get_stackid"),
    "task_under_cgroup": (errno.EINVAL, "current_task_under_cgroup"),
    "ringbuf_output": (errno.EINVAL, "ringbuf_output"),
    "ringbuf_reserve": (errno.EINVAL, "ringbuf_reserve"),
    "ringbuf_query": (errno.EINVAL, "ringbuf_query"),
    "user_ringbuf_drain": (errno.EINVAL, "user_ringbuf_drain"),
    "sk_storage_get": (errno.EINVAL, "sk_storage_get"),
    "sk_storage_delete": (errno.EINVAL, "sk_storage_delete"),
    "task_storage_get": (errno.EINVAL, "task_storage_get"),
    "skb_under_cgroup": (errno.EINVAL, "skb_under_cgroup"),
    "local_storage": (errno.EINVAL, "get_local_storage"),
    "select_reuseport": (errno.EINVAL, "sk_select_reuseport"),
    "update_by_tc": (errno.EACCES, _READ_ONLY),
    "delete_by_cgroup": (errno.EACCES, _READ_ONLY),
    "update_by_kprobe": (errno.EACCES, _READ_ONLY),
    "inner_update": (errno.EACCES, _READ_ONLY),
    "inner_delete": (errno.EACCES, _READ_ONLY),
    "inner_redirect": (errno.EINVAL, "redirect_map"),
    "inner_write_value": (errno.EACCES, _READ_ONLY),
}
ALLOWED_HELPERS = ("inner_lookup", "inner_array_lookup")


@pytest.mark.clause("MM-9.1", "MM-9.8", "FM-8.1")
def test_progs_with_other_helpers_on_flow_map_are_rejected(
    make_flowmap: MakeFlowmap, flowmap_loaded: str, cleanup: ExitStack
) -> None:
    """The verifier lets programs call only bpf_map_lookup_elem() on a flow map.

    Every other map helper is rejected at load with a message that names the cause, by whichever
    program type, and through an outer map too.
    """
    flowmap = make_flowmap()
    maps = _helpers_maps(flowmap, cleanup)
    references = modules.refcount(flowmap_loaded)
    for program in ALLOWED_HELPERS:
        assert _refusal("verifier_helpers", maps, program) == (0, ""), program
    wrong = []
    for program, (code, reason) in REFUSED_HELPERS.items():
        message = (
            reason
            if reason in (_READ_ONLY, _NO_PROG_ARRAY)
            else _BAD_TYPE.format(bpf.flowmap_type(), reason)
        )
        got, log = _refusal("verifier_helpers", maps, program)
        if got != code or message not in log:
            wrong.append(f"{program}: expected {code} and {message!r}, got {got}: {log[-400:]}")
    assert not wrong, "\n".join(wrong)
    assert list(bpf.iterate_keys(flowmap)) == []
    assert bpf.lookup_or_none(flowmap, uapi.Key(l3proto=2)) is None
    assert modules.refcount(flowmap_loaded) == references


class _IterLink(ctypes.Structure):
    """``link_create`` of ``union bpf_attr`` for an iterator of a map's elements."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_uint64),
        ("iter_info_len", ctypes.c_uint32),
    )


@pytest.mark.clause("MM-9.1", "FM-8.1")
def test_element_iterator_of_flow_map_is_einval(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """An iterator program, which may write to the values that it visits, gets no flow map."""
    flowmap = make_flowmap()
    maps = _helpers_maps(flowmap, cleanup)
    loaded = BpfObject("verifier_helpers", maps, ("element_iterator",))
    cleanup.callback(loaded.close)

    def attach(fd: int) -> int:
        target = ctypes.c_uint32(fd)
        attr = _IterLink(
            prog_fd=loaded.program_fd("element_iterator"),
            attach_type=_TRACE_ITER,
            iter_info=bpf.user_pointer(target),
            iter_info_len=ctypes.sizeof(target),
        )
        return bpf.bpf(bpf_attr.Command.LINK_CREATE, attr)

    with expect_errno(errno.EINVAL):
        attach(flowmap)
    # Control: a hash map.
    with bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 1)) as other:
        os.close(attach(other))


# The verifier sees the function by itself and refuses the call, with EINVAL.
_GLOBAL_FUNCTION = "store_by_global_function"
VALUE_WRITES = (
    "store_first_byte",
    "store_last_byte",
    "store_u16",
    "store_u64",
    "store_by_tc",
    "store_by_cgroup",
    "store_by_socket",
    "store_by_kprobe",
    "atomic_add",
    "atomic_exchange",
    "atomic_compare_exchange",
    "atomic_or",
    "store_by_function",
    _GLOBAL_FUNCTION,
    "store_by_loop",
    "fib_lookup",
    "fib_lookup_by_tc",
    "check_mtu",
    "check_mtu_by_tc",
    "string_to_long",
    "string_to_ulong",
    "xdp_load_bytes",
    "skb_load_bytes",
    "skb_load_bytes_relative",
    "get_tunnel_key",
    "probe_read_kernel",
    "probe_read_user",
    "get_current_comm",
    "get_stack",
    "print_to_value",
    "dynptr_from_mem",
    "dynptr_read",
    "dynptr_slice",
    "kfunc_options",
)
VALUE_READS = ("read_by_csum_diff", "read_by_update_of_other_map", "read_by_lookup_in_other_map")


@pytest.mark.clause("MM-9.3", "FM-8.1", "V0-8")
def test_progs_that_write_to_value_are_rejected(make_flowmap: MakeFlowmap) -> None:
    """Writes through the value are rejected at load with a message that names the cause.

    By instructions of each size and kind, by functions that get the value, and by helpers and
    kfuncs that would write to it.  Helpers that read the value are allowed.
    """
    maps = {"flows": make_flowmap()}
    for program in VALUE_READS:
        assert _refusal("verifier_value_writes", maps, program) == (0, ""), program
    wrong = []
    for program in VALUE_WRITES:
        got, log = _refusal("verifier_value_writes", maps, program)
        code = errno.EINVAL if program == _GLOBAL_FUNCTION else errno.EACCES
        if got != code or _READ_ONLY not in log:
            wrong.append(f"{program}: expected {code}, got {got}: {log[-400:]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.clause("MM-9.3", "FM-8.1")
def test_inner_flow_map_of_a_writable_template_is_refused(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """An outer map whose template is no flow map does not take one, and the other way round.

    A program that may write to the inner maps of the one would write to a flow map.
    """
    flowmap = make_flowmap()
    other = bpf.map_create(bpf_attr.MAP_TYPE_HASH, uapi.KEY_SIZE, uapi.VALUE_SIZE, 2048)
    cleanup.callback(os.close, other)
    for outer_type in (bpf_attr.MAP_TYPE_HASH_OF_MAPS, bpf_attr.MAP_TYPE_ARRAY_OF_MAPS):
        for template, wrong in ((other, flowmap), (flowmap, other)):
            outer = bpf.map_create(outer_type, 4, 4, 1, inner_map_fd=template)
            with bpf.closing_fd(outer):
                with expect_errno(errno.EINVAL):
                    bpf.update_raw(outer, _SLOT, struct.pack("=I", wrong))
                bpf.update_raw(outer, _SLOT, struct.pack("=I", template))
