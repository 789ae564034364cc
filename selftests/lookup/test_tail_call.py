# SPDX-License-Identifier: GPL-2.0-only
"""Programs with a flow map as callees of tail calls.

An extension (freplace) is not sleepable itself, but runs where its target may sleep, and so does
what it calls.  The kernel does not know a callee's callers, so a program with a flow map is no
callee if programs of its type may be sleepable.
"""

import errno
import struct
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.extension_prog import ExtensionObject
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.pytest_plugin.plugin_api import LoadBpf, MakeFlowmap

_SLOT = bytes(4)
_TARGET, _FUNCTION = "sleepable_uprobe_target", "replaceable"


def _enter_array(array: int, program: int) -> None:
    bpf.update_raw(array, _SLOT, struct.pack("=I", program))


@pytest.fixture
def extension_array(make_flowmap: MakeFlowmap, load_bpf: LoadBpf, cleanup: ExitStack) -> int:
    """The program array of an extension that is attached to a program that may sleep."""
    flowmap = make_flowmap()
    target = load_bpf("tail_call", flowmap, _TARGET).program_fd(_TARGET)
    extension = ExtensionObject(
        "tail_call", {"flows": flowmap}, "from_extension", target, _FUNCTION
    )
    cleanup.callback(extension.close)
    extension.replace("from_extension", cleanup)
    return extension.map_fd("programs")


@pytest.mark.clause("MM-9.6")
def test_callee_with_lookup_of_sleepable_targets_ext_prog_is_einval(
    extension_array: int, make_flowmap: MakeFlowmap, load_bpf: LoadBpf
) -> None:
    """An extension of a program that may sleep cannot tail-call a program with a flow map.

    It can call the same program without one.
    """
    callees = load_bpf("tail_call", make_flowmap(), "uprobe_with_lookup", "uprobe_without_flowmap")
    _enter_array(extension_array, callees.program_fd("uprobe_without_flowmap"))
    with expect_errno(errno.EINVAL):
        _enter_array(extension_array, callees.program_fd("uprobe_with_lookup"))


@pytest.mark.clause("MM-9.6")
def test_kprobe_prog_with_lookup_in_unused_prog_array_is_einval(
    make_flowmap: MakeFlowmap, load_bpf: LoadBpf
) -> None:
    """A KPROBE program with a flow map cannot enter an array before an extension uses it either."""
    callees = load_bpf("tail_call", make_flowmap(), "uprobe_with_lookup", "uprobe_without_flowmap")
    array = callees.map_fd("programs")
    with expect_errno(errno.EINVAL):
        _enter_array(array, callees.program_fd("uprobe_with_lookup"))
    _enter_array(array, callees.program_fd("uprobe_without_flowmap"))


@pytest.mark.clause("MM-9.7")
@pytest.mark.parametrize("callee", ["xdp_with_lookup", "tc_with_lookup"])
def test_callee_with_lookup_of_a_type_that_never_sleeps_enters_prog_array(
    make_flowmap: MakeFlowmap, load_bpf: LoadBpf, callee: str
) -> None:
    """XDP and tc programs with a flow map can be the callees of tail calls."""
    callees = load_bpf("tail_call", make_flowmap(), callee)
    _enter_array(callees.map_fd("programs"), callees.program_fd(callee))
