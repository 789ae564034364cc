# SPDX-License-Identifier: GPL-2.0-only
"""The exclusive lock: released when its holder exits, still held by a child that inherits it."""

import signal
import subprocess
import sys
from pathlib import Path

from fixtures.host.util.file_lock import exclusive_lock


def test_lock_is_free_after_holder_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\n"
        f"from {exclusive_lock.__module__} import {exclusive_lock.__name__} as lock\n"
        "with lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        waited: list[bool] = []

        def waiting() -> None:
            waited.append(True)
            holder.send_signal(signal.SIGKILL)

        with exclusive_lock(path, waiting):
            assert waited


def test_child_that_outlives_parent_keeps_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path) as descriptor:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(descriptor,))
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(True)
        child.kill()
        child.wait()

    with exclusive_lock(path, waiting):
        assert waited
