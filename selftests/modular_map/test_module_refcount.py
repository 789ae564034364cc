# SPDX-License-Identifier: GPL-2.0-only
"""What keeps a map type's module in the kernel, and what no longer does."""

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
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns, tc
from fixtures.guest.pytest_plugin.fixtures import Flowmap, Namespaces

Release = Callable[[], None]

_LD_MAP_FD = struct.pack("<BBhi", 0x18, 0x11, 0, 0)  # r1 = map; the descriptor goes into imm
_PASS = struct.pack("<BBhi", 0xB7, 0, 0, 2)  # r0 = XDP_PASS
_TAINTED = Path("/proc/sys/kernel/tainted")
_EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def _program_using(fd: int, kind: int = prog_syscalls.PROG_TYPE_XDP) -> int:
    """Load a program that names the map and does nothing with it."""
    load = _LD_MAP_FD[:4] + struct.pack("<i", fd) + bytes(8)
    return prog_syscalls.prog_load(kind, load + _PASS + _EXIT)


def _has_references(count: int) -> bool:
    return modules.references(modules.FLOWMAP) == count


def _unloadable() -> bool:
    """Try to unload the module; whether it went."""
    try:
        modules.unload(modules.FLOWMAP)
    except BlockingIOError:
        return False
    return True


def by_dup(fd: int, _: Path, __: str) -> Release:
    """A second descriptor."""
    other = os.dup(fd)
    return lambda: os.close(other)


def by_unix_socket(fd: int, _: Path, __: str) -> Release:
    """A descriptor under way in a UNIX socket, that nobody has received."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    bpf.send_fd(near, fd)

    def release() -> None:
        near.close()
        far.close()

    return release


def by_pin(fd: int, bpffs: Path, _: str) -> Release:
    """A pin in a BPF file system."""
    pin = bpffs / "flows"
    bpf.pin(fd, str(pin))
    return pin.unlink


def by_identity(fd: int, _: Path, __: str) -> Release:
    """A descriptor taken by the map's id."""
    other = bpf.map_by_id(bpf.map_info(fd).id)
    return lambda: os.close(other)


def by_program(fd: int, _: Path, __: str) -> Release:
    """A loaded program that uses the map."""
    program = _program_using(fd)
    return lambda: os.close(program)


def by_link(fd: int, _: Path, namespace: str) -> Release:
    """An attached program whose own descriptor is closed."""
    with bpf.closing(_program_using(fd)) as program, netns.entered(namespace):
        link = prog_syscalls.xdp_link(program, 1)
    return lambda: os.close(link)


def by_filter(fd: int, bpffs: Path, namespace: str) -> Release:
    """A program that nothing but a filter of tc holds."""
    pin = bpffs / "filter"
    with bpf.closing(_program_using(fd, prog_syscalls.PROG_TYPE_SCHED_CLS)) as program:
        bpf.pin(program, str(pin))
    tc.run("qdisc add dev lo clsact", namespace)
    tc.run(f"filter add dev lo ingress bpf direct-action object-pinned {pin}", namespace)
    pin.unlink()

    def release() -> None:
        tc.run("qdisc del dev lo clsact", namespace)

    return release


def by_template(fd: int, _: Path, __: str) -> Release:
    """An outer map that was only made after its likeness."""
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=fd)
    return lambda: os.close(outer)


def by_outer_map(fd: int, _: Path, __: str) -> Release:
    """An outer map that holds it as an element."""
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=fd)
    bpf.update_raw(outer, struct.pack("=I", 1), struct.pack("=I", fd))
    return lambda: os.close(outer)


HOLDERS = (
    by_dup,
    by_unix_socket,
    by_pin,
    by_identity,
    by_program,
    by_link,
    by_filter,
    by_template,
    by_outer_map,
)


@pytest.mark.clause("MM-4", "V0-5")
def test_unload_is_refused_while_a_descriptor_is_open(
    flowmap_module: str, namespace: Namespaces
) -> None:
    with netns.entered(namespace("fm-held")):
        fd = bpf.flowmap_create()
    assert modules.references(flowmap_module) == 1

    with refused(errno.EWOULDBLOCK):
        modules.unload(flowmap_module)

    os.close(fd)
    wait_for("the module to be unloadable", _unloadable)
    assert not modules.loaded(flowmap_module)


@pytest.mark.clause("MM-4")
@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__)
def test_unload_is_refused_while_the_map_lives_otherwise(
    hold: Callable[[int, Path, str], Release],
    flowmap_module: str,
    namespace: Namespaces,
    bpffs: Path,
) -> None:
    inside = namespace("fm-held")
    with netns.entered(inside):
        fd = bpf.flowmap_create()
    release = hold(fd, bpffs, inside)
    os.close(fd)

    assert not _unloadable()
    assert modules.references(flowmap_module) >= 1

    release()
    wait_for("the module to be unloadable", _unloadable)


@pytest.mark.clause("MM-4")
def test_every_map_is_a_reference_of_its_own(
    flowmap_module: str, namespace: Namespaces, make_flowmap: Flowmap
) -> None:
    inside = namespace("fm-held")
    fds = [make_flowmap(inside) for _ in range(5)]
    assert modules.references(flowmap_module) == 5
    for left, fd in zip(reversed(range(5)), fds, strict=True):
        os.close(fd)
        wait_for(
            f"{left} reference(s) to remain",
            partial(_has_references, left),
        )
    assert _unloadable()


@pytest.mark.clause("MM-6", "MM-1", "V0-5")
def test_reload_serves_again(flowmap_module: str, namespace: Namespaces) -> None:
    inside = namespace("fm-again")
    for _ in range(10):
        with bpf.flowmap(inside) as fd:
            assert bpf.map_info(fd).type == bpf.flowmap_type()
        wait_for("the module to be unloadable", _unloadable)
        with modules.autoload_disabled(), refused(errno.EINVAL):
            bpf.flowmap_create()
        modules.load(flowmap_module)


def _forced() -> bool:
    """Whether the kernel knows of a forced unload (TAINT_FORCED_RMMOD)."""
    return bool(int(_TAINTED.read_text()) & 1 << 1)


@pytest.mark.clause("MM-4")
def test_forced_unload_leaves_what_a_module_depends_on(
    flowmap_module: str, namespace: Namespaces, make_flowmap: Flowmap
) -> None:
    """A map holds its module, and that the one with the flow tables; force is for the first.

    It is not tried there: kernel/module/main.c goes over any reference then, and says so by a
    taint, because what holds the module is sure to use it again.
    """
    fd = make_flowmap(namespace("fm-forced"))
    assert modules.holders(modules.FLOWTABLE) == [flowmap_module]
    for force in (False, True):
        with refused(errno.EWOULDBLOCK):
            modules.unload(modules.FLOWTABLE, force=force)
    assert bpf.found(fd, uapi.Key(l3proto=2)) is None

    os.close(fd)
    modules.await_unreferenced(flowmap_module)
    # Nothing has to be forced here.
    modules.unload(flowmap_module, force=True)
    modules.unload(modules.FLOWTABLE, force=True)
    assert not _forced()


@pytest.mark.clause("MM-6")
def test_unloaded_module_leaves_other_types_alone(flowmap_module: str, cleanup: ExitStack) -> None:
    fd = cleanup.enter_context(bpf.closing(bpf.map_create(bpf_attr.MAP_TYPE_HASH, 4, 4, 8)))
    modules.unload(flowmap_module)
    bpf.update_raw(fd, b"abcd", b"wxyz")
    assert bpf.lookup_raw(fd, b"abcd", 4) == b"wxyz"
