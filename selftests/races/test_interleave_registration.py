# SPDX-License-Identifier: GPL-2.0-only
"""Two registrations of one map type that meet inside the critical section."""

import errno
import os
import signal
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import dummy_map_module, prog_info, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules, store_instructions
from fixtures.guest.kernel.syncpoints import HELD_CPU, Syncpoint, stop_at
from fixtures.guest.pytest_plugin.plugin_api import require_suite_module
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu", "flowmap_unloaded")

_REGISTER = "bpf_map_register_ops"
_SLOT = bytes(4)
_READ_HEADER = struct.Struct("=Qq")
_READ_BYTES = 1024
_FRAME = bytes(64)
FIRST, SECOND = dummy_map_module.MODULE, dummy_map_module.SECOND_MODULE


def _machine_code(function: str) -> bytes:
    """Return the machine code of a kernel function, read by a BPF program."""
    addresses = sorted(prog_info.symbol_names())
    (start,) = (address for address, name in prog_info.symbol_names().items() if name == function)
    length = next(address for address in addresses if address > start) - start
    reader = BpfObject("kernel_text", {})
    try:
        request = reader.map_fd("request")
        bpf.update_raw(request, _SLOT, _READ_HEADER.pack(start, 0) + bytes(_READ_BYTES))
        prog_syscalls.run_on_packet(reader.program_fd("read_text"), _FRAME)
        raw = bpf.lookup_raw(request, _SLOT, _READ_HEADER.size + _READ_BYTES)
    finally:
        reader.close()
    _, result = _READ_HEADER.unpack_from(raw)
    assert result == 0, f"no memory at {function}"
    return raw[_READ_HEADER.size :][:length]


def _load_errno(path: Path, parameters: str = "") -> int:
    try:
        modules.load_file(path, parameters)
    except OSError as error:
        return error.errno or -1
    return 0


def _registration_errnos(offset: int) -> tuple[bool, int, int]:
    """Hold one registration at an offset while another one runs as far as it can.

    Returns:
        Whether the first registration was held, and the errno of each.
    """
    paths = [modules.module_path(name) for name in (FIRST, SECOND)]
    first = child_process.GatedChild(lambda: _load_errno(paths[0]), HELD_CPU)
    second = child_process.GatedChild(lambda: _load_errno(paths[1], "init_delay_ms=1"))
    with ExitStack() as unstarted:
        for child in (first, second):
            unstarted.callback(_kill, child)
        return _hold_first(offset, first, second, unstarted)


def _kill(child: child_process.Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)


def _hold_first(
    offset: int,
    first: child_process.GatedChild,
    second: child_process.GatedChild,
    unstarted: ExitStack,
) -> tuple[bool, int, int]:
    with (
        stop_at(_REGISTER, offset=offset, tgid=first.pid, may_miss=True) as inside,
        # Loading a module sends interrupts to all CPUs, so the second has to be past that.
        stop_at(_REGISTER, tgid=second.pid) as before_registration,
        # The second sleeps in its init after a registration that succeeded.
        stop_at("msleep", tgid=second.pid, may_miss=True) as registered,
    ):
        unstarted.pop_all()
        second.start()
        before_registration.wait_until_held()
        first.start()
        wait_for(
            "the first registration to be held or to end",
            lambda: inside.hit() or interleavings.task_state(first.pid) == "Z",
        )
        held = inside.hit()
        before_registration.release()
        wait_for(
            "the second registration to succeed, to wait or to fail",
            lambda: registered.hit() or interleavings.task_state(second.pid) in "DZ",
        )
        if held:
            inside.release()
        first_errno = first.join()
        _release_if_held(registered, second)
        second_errno = second.join()
    assert isinstance(first_errno, int)
    assert isinstance(second_errno, int)
    return held, first_errno, second_errno


def _release_if_held(registered: Syncpoint, second: child_process.Child) -> None:
    """Let the second module's init go on, if its registration has succeeded."""
    wait_for(
        "the second registration to end",
        lambda: registered.hit() or interleavings.task_state(second.pid) == "Z",
    )
    if registered.hit():
        registered.release()


@pytest.mark.clause("MM-2.7", "RT-1.1")
@pytest.mark.deadline(60)
def test_registrations_that_meet_before_the_store_have_one_winner(cleanup: ExitStack) -> None:
    """Exactly one of two concurrent registrations succeeds, the other gets EBUSY.

    The first is held before the instruction that fills the slot, when it has found it free.  The
    second runs meanwhile, as far as the kernel lets it.
    """
    require_suite_module(FIRST)
    if not store_instructions.is_supported():
        pytest.skip("the test finds the store among x86-64 instructions")
    cleanup.enter_context(modules.autoload_disabled())
    modules.modprobe("fm_syncpoint")
    bpf.flowmap_type()  # cached here, so that the children open no other files
    offsets = store_instructions.store_offsets(_machine_code(_REGISTER))
    held_at = []
    for offset in offsets:
        try:
            held, *errnos = _registration_errnos(offset)
        except OSError as error:
            if error.errno not in (errno.EILSEQ, errno.EINVAL):
                raise
            continue  # no instruction begins there
        assert sorted(errnos) == [0, errno.EBUSY], f"held at {_REGISTER}+{offset:#x}"
        winner = FIRST if errnos[0] == 0 else SECOND
        if held:
            held_at.append(offset)
        assert errno_of(dummy_map_module.create_map) == 0
        modules.wait_until_unreferenced(winner)
        modules.unload(winner)
    assert held_at, f"no registration was held at a store of {_REGISTER}: {offsets}"
    assert errno_of(dummy_map_module.create_map) == errno.EINVAL
