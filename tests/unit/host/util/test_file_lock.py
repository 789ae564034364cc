# SPDX-License-Identifier: GPL-2.0-only
"""The exclusive lock: released when its holder exits, still held by a child that inherits it."""

import signal
import subprocess
import sys
from pathlib import Path

from fixtures.host.util.file_lock import exclusive_lock, shared_lock, try_exclusive_lock
from tests.unit.host.util.lock_holder import lock_holder
from tests.unit.host.util.other_user import run_as_other_user, shared_folder


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


def test_lock_of_another_user_can_be_taken() -> None:
    code = (
        "import pathlib, sys\n"
        f"from {exclusive_lock.__module__} import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('locked')\n"
    )
    with shared_folder() as folder:
        with exclusive_lock(folder / "lock"):
            pass
        done = run_as_other_user(code, folder / "lock")
        assert (done.stdout, done.stderr) == ("locked\n", "")
        denied = run_as_other_user(code, folder / "new")
        assert denied.stderr.splitlines()[-1].startswith("PermissionError: [Errno 13]")


def test_try_exclusive_lock_does_not_wait(tmp_path: Path) -> None:
    for path in (tmp_path / "lock", tmp_path):
        with lock_holder(path), try_exclusive_lock(path) as taken:
            assert not taken
        with try_exclusive_lock(path) as taken:
            assert taken


def test_shared_locks_exclude_exclusive_ones_only(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with shared_lock(path), shared_lock(path), try_exclusive_lock(path) as taken:
        assert not taken
