# SPDX-License-Identifier: GPL-2.0-only
"""A program is in its lookup, on real traffic, while its attachment goes and the module unloads."""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf import prog_syscalls
from fixtures.guest.bpf.libbpf import BpfObject
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import memcg, modules
from fixtures.guest.kernel.syncpoints import HELD_CPU, stop_at
from fixtures.guest.net import netns, tc
from fixtures.guest.pytest_plugin.plugin_api import MakeNetns
from selftests.races import interleavings

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

_LOOPBACK = 1
_PORT = 4321
_SO_ATTACH_BPF = 50

Detach = Callable[[], None]


class Attachment:
    """Attaches programs so that nothing else holds them."""

    def __init__(self, namespace: str, bpffs: Path, cgroup: memcg.Cgroup, receiver: socket.socket):
        self.namespace, self.bpffs, self.cgroup, self.receiver = namespace, bpffs, cgroup, receiver

    def link(self, prog: int, attach_type: int) -> Detach:
        """Attach to the loopback device."""
        with netns.entered(self.namespace):
            link = prog_syscalls.create_link(prog, _LOOPBACK, attach_type)
        return lambda: os.close(link)

    def cgroup_link(self, prog: int, attach_type: int) -> Detach:
        """Attach to the cgroup of the sender."""
        folder = os.open(self.cgroup.path, os.O_RDONLY)
        with bpf.closing_fd(folder):
            link = prog_syscalls.create_link(prog, folder, attach_type)
        return lambda: os.close(link)

    def tc_filter(self, prog: int, _: int) -> Detach:
        """Attach as the action of a tc filter."""
        pin = self.bpffs / "filter"
        bpf.pin(prog, str(pin))
        tc.run("qdisc add dev lo clsact", self.namespace)
        command = f"filter add dev lo egress bpf direct-action object-pinned {pin}"
        tc.run(command, self.namespace)
        pin.unlink()
        return lambda: tc.delete_clsact(_LOOPBACK, self.namespace)

    def socket_filter(self, prog: int, _: int) -> Detach:
        """Attach to the receiving socket."""
        self.receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, prog)
        return self.receiver.close


ATTACHMENTS: dict[str, tuple[str, Callable[[Attachment, int, int], Detach], int]] = {
    "xdp": ("by_xdp", Attachment.link, prog_syscalls.XDP),
    "tcx-ingress": ("by_tc", Attachment.link, prog_syscalls.TCX_INGRESS),
    "tcx-egress": ("by_tc", Attachment.link, prog_syscalls.TCX_EGRESS),
    "tc-filter": ("by_tc", Attachment.tc_filter, 0),
    "cgroup-egress": ("by_cgroup", Attachment.cgroup_link, prog_syscalls.CGROUP_INET_EGRESS),
    "socket-filter": ("by_socket", Attachment.socket_filter, 0),
}


@pytest.mark.clause("MM-4.4", "MM-7.2", "RT-1.1")
@pytest.mark.parametrize("kind", ATTACHMENTS)
def test_unload_during_lookup_of_attached_prog_is_refused(
    kind: str, flowmap_loaded: str, make_netns: MakeNetns, bpffs: Path, cleanup: ExitStack
) -> None:
    """A program that is in its lookup keeps the module, even if its attachment goes meanwhile.

    The program has no descriptor and the map has none, so only the attachment holds them, and
    after that the packet that is on its way.
    """
    program, attach, attach_type = ATTACHMENTS[kind]
    ns = make_netns("fm-traffic")
    cgroup = memcg.create("fm-traffic", cleanup)
    ours, theirs = socket.socketpair()
    cleanup.callback(ours.close)

    def hold_and_detach() -> None:
        """Attach the program, and let go of it when the parent says so."""
        with netns.entered(ns):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind(("127.0.0.1", _PORT))
            fd = bpf.flowmap_create()
        loaded = BpfObject("lookup_probe", {"flows": fd}, (program,))
        attachment = Attachment(ns, bpffs, cgroup, receiver)
        detach = attach(attachment, loaded.program_fd(program), attach_type)
        loaded.close()
        os.close(fd)
        theirs.send(b"attached")
        theirs.recv(1)
        detach()

    def send() -> None:
        cgroup.enter()
        with netns.entered(ns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"packet", ("127.0.0.1", _PORT))

    sender = child_process.GatedChild(send, HELD_CPU)
    holder = child_process.Child(hold_and_detach)
    theirs.close()
    assert ours.recv(8) == b"attached"
    # libbpf's own maps are freed some time later.
    wait_for("one reference to remain", lambda: modules.refcount(flowmap_loaded) == 1)
    with stop_at("flowmap_lookup_elem", cpu=HELD_CPU) as lookup:
        sender.start()
        lookup.wait_until_held()
        with expect_errno(errno.EWOULDBLOCK):
            modules.unload(flowmap_loaded)
        ours.send(b"x")
        wait_for("the detachment to wait or to end", lambda: _waits_or_ended(holder.pid))
        with expect_errno(errno.EWOULDBLOCK):
            modules.unload(flowmap_loaded)
        lookup.release()
    holder.join()
    sender.join()
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)


def _waits_or_ended(pid: int) -> bool:
    """Return whether a process, or a tc(8) that it runs, waits in the kernel or has ended."""
    if interleavings.task_state(pid) in "DZ":
        return True
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.endswith("(tc") and fields.split()[0] == "D":
            return True
    return False
