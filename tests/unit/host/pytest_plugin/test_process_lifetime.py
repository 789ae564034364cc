# SPDX-License-Identifier: GPL-2.0-only
"""A process dies with its parent."""

import subprocess
import sys
from pathlib import Path

from fixtures.host.util.paths import ROOT

CHILD = """
import os, time
from fixtures.host.pytest_plugin.process_lifetime import die_with_parent
die_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""

PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {CHILD!r}])
time.sleep(60)
"""


def test_child_dies_when_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        # The child holds the pipe open until it dies.
        assert parent.stdout.read() == ""
    assert not Path(f"/proc/{child}/exe").exists()
