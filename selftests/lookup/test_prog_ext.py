# SPDX-License-Identifier: GPL-2.0-only
"""Flow maps in programs of type EXT, and in programs with callbacks that may sleep.

A value is valid only within an RCU read-side critical section.  An extension (freplace) runs in
whatever section its target's caller is in, so the verifier has to look at the target.
"""

import errno
import os
import struct
from contextlib import ExitStack

import pytest

from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.extension_prog import ExtensionObject
from fixtures.guest.bpf.libbpf import BpfObject, LoadError
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap

FUNCTION = "replaceable"
"""The global function of selftests/bpf/ext_targets.bpf.c that extensions replace."""

NONSLEEPABLE_TARGETS = ["xdp_target", "tc_target", "socket_target", "uprobe_target"]
SLEEPABLE_TARGETS = ["syscall_target", "sleepable_uprobe_target"]
LOOKUPS = ["with_lookup", "with_inner_map_lookup", "with_lookup_in_function"]

_SLOT = bytes(4)
_PACKET = bytes(64)
_XDP_PASS, _XDP_TX = 2, 3


@pytest.fixture
def maps(make_flowmap: MakeFlowmap, cleanup: ExitStack) -> dict[str, int]:
    """The maps of selftests/bpf/ext_lookup.bpf.c: a flow map, and an outer map that holds it."""
    flowmap = make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=flowmap)
    cleanup.callback(os.close, outer)
    bpf.update_raw(outer, _SLOT, struct.pack("=I", flowmap))
    return {"flows": flowmap, "outer": outer}


def _load_targets(cleanup: ExitStack, *programs: str) -> BpfObject:
    targets = BpfObject("ext_targets", {}, programs)
    cleanup.callback(targets.close)
    return targets


def _load_and_attach(maps: dict[str, int], extension: str, target: int) -> None:
    """Load an extension for a target, attach it and detach it again."""
    with ExitStack() as attachment:
        loaded = _load_extension(maps, extension, target, attachment)
        loaded.replace(extension, attachment)


def _load_extension(
    maps: dict[str, int], extension: str, target: int, cleanup: ExitStack
) -> ExtensionObject:
    # libbpf also creates the maps of programs that are not loaded, so all maps are given.
    loaded = ExtensionObject("ext_lookup", maps, extension, target, FUNCTION)
    cleanup.callback(loaded.close)
    return loaded


@pytest.mark.clause("MM-9.4")
@pytest.mark.parametrize("extension", LOOKUPS)
@pytest.mark.parametrize("target", NONSLEEPABLE_TARGETS)
def test_ext_prog_with_lookup_for_nonsleepable_target_is_attached(
    maps: dict[str, int], cleanup: ExitStack, target: str, extension: str
) -> None:
    """An extension that looks flows up can replace a function of a program that does not sleep."""
    targets = _load_targets(cleanup, target)
    loaded = _load_extension(maps, extension, targets.program_fd(target), cleanup)
    loaded.replace(extension, cleanup)
    if target == "xdp_target":
        # The function returned its argument; the extension misses, and returns the next number.
        verdict = prog_syscalls.run_on_packet(targets.program_fd(target), _PACKET)
        assert verdict == _XDP_TX


@pytest.mark.clause("MM-9.4", "MM-9.8")
@pytest.mark.parametrize("target", SLEEPABLE_TARGETS)
def test_ext_prog_with_lookup_for_sleepable_target_is_rejected(
    maps: dict[str, int], cleanup: ExitStack, target: str
) -> None:
    """An extension that looks flows up cannot replace a function of a program that may sleep.

    The same extension without a lookup can.
    """
    targets = _load_targets(cleanup, target)
    _load_and_attach(maps, "without_flowmap", targets.program_fd(target))
    for extension in LOOKUPS:
        with pytest.raises(LoadError) as rejection:
            _load_and_attach(maps, extension, targets.program_fd(target))
        assert rejection.value.errno == errno.EINVAL, extension
        assert "sleep" in str(rejection.value), extension


@pytest.mark.clause("MM-9.4", "MM-9.8")
@pytest.mark.parametrize("extension", LOOKUPS)
def test_ext_prog_with_lookup_attached_to_other_sleepable_target_is_rejected(
    maps: dict[str, int], cleanup: ExitStack, extension: str
) -> None:
    """An extension loaded for a program that does not sleep cannot be attached to one that may.

    The same extension without a lookup can.
    """
    targets = _load_targets(cleanup, "uprobe_target", "sleepable_uprobe_target")
    first, other = (
        targets.program_fd(name) for name in ("uprobe_target", "sleepable_uprobe_target")
    )
    with ExitStack() as attachment:
        allowed = _load_extension(maps, "without_flowmap", first, cleanup)
        allowed.replace("without_flowmap", attachment, other, FUNCTION)
    loaded = _load_extension(maps, extension, first, cleanup)
    with ExitStack() as attachment, pytest.raises(LoadError) as rejection:
        loaded.replace(extension, attachment, other, FUNCTION)
    assert rejection.value.errno == errno.EINVAL
    # The refusal has not used the extension up.
    with ExitStack() as attachment:
        loaded.replace(extension, attachment)


@pytest.mark.clause("MM-9.4")
def test_rejected_ext_prog_leaves_target_unchanged(
    maps: dict[str, int], cleanup: ExitStack
) -> None:
    """A program whose extension was refused runs its own function, and so does its neighbour."""
    targets = _load_targets(cleanup, "syscall_target", "xdp_target")
    with pytest.raises(LoadError):
        _load_and_attach(maps, "with_lookup", targets.program_fd("syscall_target"))
    verdict = prog_syscalls.run_on_packet(targets.program_fd("xdp_target"), _PACKET)
    assert verdict == _XDP_PASS


@pytest.mark.clause("MM-9.5")
def test_prog_with_sleepable_callback_without_lookup_is_loaded(
    make_flowmap: MakeFlowmap, cleanup: ExitStack
) -> None:
    """A program may look flows up and start a work item, if only the program looks up."""
    loaded = BpfObject("sleepable_callback", {"flows": make_flowmap()}, ("only_in_prog",))
    cleanup.callback(loaded.close)


@pytest.mark.clause("MM-9.5")
@pytest.mark.parametrize("program", ["in_callback", "in_global_function"])
def test_lookup_in_sleepable_callback_is_rejected(make_flowmap: MakeFlowmap, program: str) -> None:
    """A lookup in a work item's callback, or in a global function that it calls, is rejected."""
    with pytest.raises(LoadError) as rejection:
        BpfObject("sleepable_callback", {"flows": make_flowmap()}, (program,))
    assert rejection.value.errno == errno.EINVAL
    assert "sleep" in str(rejection.value)
