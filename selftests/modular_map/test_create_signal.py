# SPDX-License-Identifier: GPL-2.0-only
"""A creator that gets a signal which does not kill it still gets a map with every flow."""

import os
import signal
from pathlib import Path
from types import FrameType

import pytest

from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.syncpoints import stop_at
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.topology.client_router_server import Router
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP


def _pending_or_gone(pid: int) -> bool:
    """Return whether a signal is pending for a process, or the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return fields["State"].startswith("Z") or any(
        int(fields[name], 16) for name in ("SigPnd", "ShdPnd")
    )


@pytest.mark.clause("SN-3.4", "SN-3.1")
@pytest.mark.usefixtures("pinned_to_test_cpu")
def test_creator_with_signal_during_publication_gets_map_with_every_flow(
    private_router: Router, open_private_connection: OpenConnection, flowmap_loaded: str
) -> None:
    """The creation is not interrupted, and the handler runs when BPF_MAP_CREATE has returned."""
    flows = [
        open_private_connection(protocol, version).wait_offloaded()
        for protocol, version in ((IPPROTO_UDP, 4), (IPPROTO_TCP, 6))
    ]
    bpf.flowmap_type()  # cached here, so that the child opens no file

    def create() -> tuple[list[str], list[bytes]]:
        events: list[str] = []

        def handler(_number: int, _frame: FrameType | None) -> None:
            events.append("handler")

        signal.signal(signal.SIGUSR1, handler)
        with netns.entered(private_router.namespace):
            fd = bpf.flowmap_create()
        with bpf.closing_fd(fd):
            return events, sorted(map(bytes, bpf.iterate_keys(fd)))

    creator = child_process.GatedChild(create)
    with stop_at("nf_flow_index_work", comm="kworker") as publication:
        creator.start()
        publication.wait_until_held()
        os.kill(creator.pid, signal.SIGUSR1)
        wait_for("the signal to be pending", lambda: _pending_or_gone(creator.pid))
        publication.release()
    expected = sorted(bytes(key) for flow in flows for key in flow.keys)
    assert creator.join() == (["handler"], expected)
    modules.wait_until_unreferenced(flowmap_loaded)
