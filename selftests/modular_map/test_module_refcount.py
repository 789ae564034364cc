# SPDX-License-Identifier: GPL-2.0-only
"""References that pin a map type's module, and unloading once they are released."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns, tc
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, MakeNetns

Release = Callable[[], None]

_LD_MAP_FD = struct.pack("<BBhi", 0x18, 0x11, 0, 0)  # r1 = map; imm takes the fd
_PASS = struct.pack("<BBhi", 0xB7, 0, 0, 2)  # r0 = XDP_PASS
_TAINTED = Path("/proc/sys/kernel/tainted")
_EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def _load_program_using(fd: int, prog_type: int = prog_syscalls.PROG_TYPE_XDP) -> int:
    """Load a program that references the map without accessing it; return its fd."""
    load = _LD_MAP_FD[:4] + struct.pack("<i", fd) + bytes(8)
    return prog_syscalls.prog_load(prog_type, load + _PASS + _EXIT)


def _refcount_is(count: int) -> bool:
    return modules.refcount(modules.FLOWMAP_MODULE) == count


def _try_unload() -> bool:
    """Try to unload the flow map module; return whether it was unloaded."""
    try:
        modules.unload(modules.FLOWMAP_MODULE)
    except BlockingIOError:
        return False
    return True


def dup_fd(fd: int, _: Path, __: str) -> Release:
    """A duplicated fd."""
    other = os.dup(fd)
    return lambda: os.close(other)


def scm_rights_in_flight(fd: int, _: Path, __: str) -> Release:
    """An fd queued in a UNIX socket (SCM_RIGHTS) and not received."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    bpf.send_fd_over_socket(near, fd)

    def release() -> None:
        near.close()
        far.close()

    return release


def bpffs_pin(fd: int, bpffs: Path, _: str) -> Release:
    """A bpffs pin."""
    pin = bpffs / "flows"
    bpf.pin(fd, str(pin))
    return pin.unlink


def fd_by_map_id(fd: int, _: Path, __: str) -> Release:
    """An fd opened by map id."""
    other = bpf.map_fd_by_id(bpf.map_info(fd).id)
    return lambda: os.close(other)


def loaded_prog(fd: int, _: Path, __: str) -> Release:
    """A loaded program that uses the map."""
    program = _load_program_using(fd)
    return lambda: os.close(program)


def xdp_link(fd: int, _: Path, namespace: str) -> Release:
    """An XDP link to a program whose own fd is closed."""
    with bpf.closing_fd(_load_program_using(fd)) as program, netns.entered(namespace):
        link = prog_syscalls.create_xdp_link(program, 1)
    return lambda: os.close(link)


def tc_filter(fd: int, bpffs: Path, namespace: str) -> Release:
    """A program that only a tc filter references."""
    pin = bpffs / "filter"
    with bpf.closing_fd(_load_program_using(fd, prog_syscalls.PROG_TYPE_SCHED_CLS)) as program:
        bpf.pin(program, str(pin))
    tc.run("qdisc add dev lo clsact", namespace)
    tc.run(f"filter add dev lo ingress bpf direct-action object-pinned {pin}", namespace)
    pin.unlink()

    def release() -> None:
        tc.run("qdisc del dev lo clsact", namespace)

    return release


def inner_map_template(fd: int, _: Path, __: str) -> Release:
    """A map of maps that was created with the map as its inner map template."""
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=fd)
    return lambda: os.close(outer)


def outer_map_element(fd: int, _: Path, __: str) -> Release:
    """A map of maps that holds the map as an element."""
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=fd)
    bpf.update_raw(outer, struct.pack("=I", 1), struct.pack("=I", fd))
    return lambda: os.close(outer)


MAP_REFERENCES = (
    dup_fd,
    scm_rights_in_flight,
    bpffs_pin,
    fd_by_map_id,
    loaded_prog,
    xdp_link,
    tc_filter,
    inner_map_template,
    outer_map_element,
)


@pytest.mark.clause("MM-4.1", "MM-4.7", "MM-4.8", "V0-5")
def test_unload_refused_while_map_fd_is_open(flowmap_loaded: str, make_netns: MakeNetns) -> None:
    """Unload fails with EWOULDBLOCK while a map fd is open, and succeeds after it is closed."""
    with netns.entered(make_netns("fm-held")):
        fd = bpf.flowmap_create()
    assert modules.refcount(flowmap_loaded) == 1

    with expect_errno(errno.EWOULDBLOCK):
        modules.unload(flowmap_loaded)

    os.close(fd)
    wait_for("the module to be unloadable", _try_unload)
    assert not modules.loaded(flowmap_loaded)


@pytest.mark.clause("MM-4.1", "MM-4.2", "MM-4.3", "MM-4.4", "MM-4.5", "MM-4.7", "MM-4.8")
@pytest.mark.parametrize(
    "take_reference", MAP_REFERENCES, ids=lambda take_reference: take_reference.__name__
)
def test_unload_refused_while_map_is_referenced(
    take_reference: Callable[[int, Path, str], Release],
    flowmap_loaded: str,
    make_netns: MakeNetns,
    bpffs: Path,
) -> None:
    """Unload is refused while the map is referenced after its first fd was closed."""
    ns = make_netns("fm-held")
    with netns.entered(ns):
        fd = bpf.flowmap_create()
    release = take_reference(fd, bpffs, ns)
    os.close(fd)

    assert not _try_unload()
    assert modules.refcount(flowmap_loaded) >= 1

    release()
    wait_for("the module to be unloadable", _try_unload)


@pytest.mark.clause("MM-4.1", "MM-4.8")
def test_each_map_holds_one_module_ref(
    flowmap_loaded: str, make_netns: MakeNetns, make_flowmap: MakeFlowmap
) -> None:
    """Each map holds one module reference until it is freed."""
    ns = make_netns("fm-held")
    fds = [make_flowmap(ns) for _ in range(5)]
    assert modules.refcount(flowmap_loaded) == 5
    for remaining, fd in zip(reversed(range(5)), fds, strict=True):
        os.close(fd)
        wait_for(
            f"{remaining} reference(s) to remain",
            partial(_refcount_is, remaining),
        )
    assert _try_unload()


@pytest.mark.clause("MM-1.1", "MM-6.1", "MM-6.2", "V0-5")
def test_module_reload_permits_map_create_again(flowmap_loaded: str, make_netns: MakeNetns) -> None:
    """After each of ten unloads map creation is EINVAL, and a reload permits it again."""
    ns = make_netns("fm-again")
    for _ in range(10):
        with bpf.open_flowmap(ns) as fd:
            assert bpf.map_info(fd).type == bpf.flowmap_type()
        wait_for("the module to be unloadable", _try_unload)
        with modules.autoload_disabled(), expect_errno(errno.EINVAL):
            bpf.flowmap_create()
        modules.load(flowmap_loaded)


def _tainted_by_forced_unload() -> bool:
    """Return whether the kernel is tainted by a forced unload (TAINT_FORCED_RMMOD)."""
    return bool(int(_TAINTED.read_text()) & 1 << 1)


@pytest.mark.clause("MM-4.9")
def test_forced_unload_of_module_dependency_is_refused(
    flowmap_loaded: str, make_netns: MakeNetns, make_flowmap: MakeFlowmap
) -> None:
    """A module that the flow map module depends on is not unloaded, not even by force.

    A map pins the flow map module, which pins nf_flow_table.  The flow map module itself is not
    unloaded by force while a map exists: kernel/module/main.c would ignore the reference, taint the
    kernel and free code that the map still calls.
    """
    fd = make_flowmap(make_netns("fm-forced"))
    assert modules.holders(modules.FLOWTABLE_MODULE) == [flowmap_loaded]
    for force in (False, True):
        with expect_errno(errno.EWOULDBLOCK):
            modules.unload(modules.FLOWTABLE_MODULE, force=force)
    assert bpf.lookup_or_none(fd, uapi.Key(l3proto=2)) is None

    os.close(fd)
    modules.wait_until_unreferenced(flowmap_loaded)
    # Without references the force flag has no effect.
    modules.unload(flowmap_loaded, force=True)
    modules.unload(modules.FLOWTABLE_MODULE, force=True)
    assert not _tainted_by_forced_unload()


@pytest.mark.clause("MM-6.1")
def test_builtin_map_after_module_unload_works(flowmap_loaded: str, cleanup: ExitStack) -> None:
    """A hash map works after the flow map module is unloaded."""
    fd = cleanup.enter_context(bpf.closing_fd(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8)))
    modules.unload(flowmap_loaded)
    bpf.update_raw(fd, b"abcd", b"wxyz")
    assert bpf.lookup_raw(fd, b"abcd", 4) == b"wxyz"
