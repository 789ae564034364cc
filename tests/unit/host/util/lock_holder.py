# SPDX-License-Identifier: GPL-2.0-only
"""A real process that holds a file lock until the test ends it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import fcntl, os, sys
flags = os.O_RDONLY if os.path.isdir(sys.argv[1]) else os.O_RDWR | os.O_CREAT
fcntl.flock(os.open(sys.argv[1], flags), fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def lock_holder(path: Path) -> "Iterator[subprocess.Popen[str]]":
    """Yield a process that holds an exclusive flock(2) on a file or folder."""
    argv = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()
