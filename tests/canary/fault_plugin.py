# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin for the canaries' inner run: does to the host's side what nobody should."""

import os
import signal
import threading
import time
from pathlib import Path


def _own_qemu() -> list[int]:
    """Return the QEMU processes that this process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        if name.startswith("qemu-system") and int(rest.split()[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def _kill_qemu_that_runs_a_test() -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for pid in _own_qemu():
            began = Path(f"/proc/{pid}/fd")
            if began.exists() and time.monotonic() > until - 57:
                os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.1)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Strike when the victim's turn comes."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    if "test_qemu_is_killed" in nodeid:
        threading.Thread(target=_kill_qemu_that_runs_a_test, daemon=True).start()
    if "test_worker_dies" in nodeid:
        os._exit(9)
