# SPDX-License-Identifier: GPL-2.0-only
"""Ways to hold a flow map that outlive its first descriptor.

Each takes the map's descriptor, the path of a bpffs and a network namespace, and returns the
function that lets go of the map again.
"""

import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from fixtures.guest.bpf import bpf_attr, instructions, prog_syscalls
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.net import netns, tc

Release = Callable[[], None]
Holder = Callable[[int, Path, str], Release]

_XDP_PASS = 2
_LOOPBACK = 1
_SLOT = struct.pack("=I", 0)
_SO_ATTACH_BPF = 50


def _load_program_using(fd: int, prog_type: int = prog_syscalls.PROG_TYPE_XDP) -> int:
    """Load a program that references the map without accessing it; return its fd."""
    program = instructions.load_map(1, fd) + instructions.return_value(_XDP_PASS)
    return prog_syscalls.prog_load(prog_type, program)


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
        link = prog_syscalls.create_xdp_link(program, _LOOPBACK)
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


def inherited_fd(fd: int, _: Path, __: str) -> Release:
    """A descriptor that a child process has inherited; the kernel closes it when the child dies."""
    child = child_process.GatedChild(lambda: None)
    assert Path(f"/proc/{child.pid}/fd/{fd}").exists()

    def release() -> None:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)

    return release


def bound_prog(fd: int, _: Path, __: str) -> Release:
    """A program that does not use the map, and that the map is bound to (BPF_PROG_BIND_MAP)."""
    program = prog_syscalls.prog_load(
        prog_syscalls.PROG_TYPE_XDP, instructions.return_value(_XDP_PASS)
    )
    prog_syscalls.bind_map(program, fd)
    # Binding it again takes no second reference.
    prog_syscalls.bind_map(program, fd)
    return lambda: os.close(program)


def tcx_link(fd: int, _: Path, namespace: str) -> Release:
    """A tcx link to a program whose own fd is closed."""
    prog_type = prog_syscalls.PROG_TYPE_SCHED_CLS
    with bpf.closing_fd(_load_program_using(fd, prog_type)) as program, netns.entered(namespace):
        link = prog_syscalls.create_tcx_egress_link(program, _LOOPBACK)
    return lambda: os.close(link)


def pinned_link(fd: int, bpffs: Path, namespace: str) -> Release:
    """A pinned XDP link; neither the link nor its program has a descriptor."""
    pin = bpffs / "link"
    with bpf.closing_fd(_load_program_using(fd)) as program, netns.entered(namespace):
        link = prog_syscalls.create_xdp_link(program, _LOOPBACK)
    with bpf.closing_fd(link):
        bpf.pin(link, str(pin))
    return pin.unlink


def pinned_prog(fd: int, bpffs: Path, _: str) -> Release:
    """A pinned program."""
    pin = bpffs / "program"
    with bpf.closing_fd(_load_program_using(fd)) as program:
        bpf.pin(program, str(pin))
    return pin.unlink


def prog_array_element(fd: int, _: Path, __: str) -> Release:
    """A program that only a program array references."""
    array = bpf.map_create(bpf_attr.MAP_TYPE_PROG_ARRAY, 4, 4, 1)
    with bpf.closing_fd(_load_program_using(fd)) as program:
        bpf.update_raw(array, _SLOT, struct.pack("=I", program))
    return lambda: os.close(array)


def socket_filter(fd: int, _: Path, __: str) -> Release:
    """A program that only a socket references (SO_ATTACH_BPF)."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    prog_type = prog_syscalls.PROG_TYPE_SOCKET_FILTER
    with bpf.closing_fd(_load_program_using(fd, prog_type)) as program:
        holder.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    return holder.close


def array_of_maps_element(fd: int, _: Path, __: str) -> Release:
    """An array of maps that holds the map as an element."""
    outer = bpf.map_create(bpf_attr.MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=fd)
    bpf.update_raw(outer, _SLOT, struct.pack("=I", fd))
    return lambda: os.close(outer)


MAP_HOLDERS: tuple[Holder, ...] = (
    dup_fd,
    scm_rights_in_flight,
    inherited_fd,
    bpffs_pin,
    fd_by_map_id,
    loaded_prog,
    bound_prog,
    pinned_prog,
    prog_array_element,
    xdp_link,
    pinned_link,
    tcx_link,
    tc_filter,
    socket_filter,
    outer_map_element,
    array_of_maps_element,
)
"""Holders of the map itself: it stays alive, with its id."""

TEMPLATE_HOLDERS: tuple[Holder, ...] = (
    inner_map_template,
    outer_map_element,
    array_of_maps_element,
)
"""Holders that have a module reference of their own, for the template of an outer map."""


def module_refs_of(hold: Holder) -> int:
    """Return the number of module references that a holder has beside the map's."""
    return int(hold in TEMPLATE_HOLDERS)
