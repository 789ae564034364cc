# SPDX-License-Identifier: GPL-2.0-only
"""pytest plugin of the canaries' inner run: kills QEMU, or the worker, of certain faulty tests."""

import os
import signal
import threading
import time
from pathlib import Path

_KILL_DELAY = 3.0  # seconds: by then QEMU runs the test, and no other VM saves a snapshot layer
_KILL_TIMEOUT = 60.0  # seconds


def _child_qemus() -> list[int]:
    """Return the ids of the QEMU processes that this process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # the process has exited
        name, _, rest = text.partition("(")[2].rpartition(")")
        if name.startswith("qemu-system") and int(rest.split()[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def _kill_child_qemu() -> None:
    """Wait for a QEMU process of this worker, and kill it with SIGKILL."""
    start = time.monotonic()
    while time.monotonic() < start + _KILL_TIMEOUT:
        for pid in _child_qemus():
            alive = Path(f"/proc/{pid}/fd").exists()
            if alive and time.monotonic() > start + _KILL_DELAY:
                os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.1)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Inject the fault on the host when the worker starts a test that needs one."""
    if "test_qemu_is_killed" in nodeid:
        # The controller has no QEMU of its own while a worker runs the test.
        threading.Thread(target=_kill_child_qemu, daemon=True).start()
    if "test_worker_exits" in nodeid and "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(9)
