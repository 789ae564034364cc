# SPDX-License-Identifier: GPL-2.0-only
"""Python code run by another user, for tests of shared folders."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.host.util.paths import ROOT

_USER = 65534


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Yield a folder that every user can enter; pytest's own folders are private."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run_as_other_user(code: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run Python code as an unprivileged user; skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("only root can run code as another user")
    argv = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", sys.executable]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    probe = subprocess.run([*argv, "-c", "import fixtures.host.util"], env=env, check=False)
    if probe.returncode:
        pytest.skip("another user cannot read this checkout or this Python")
    words = [str(argument) for argument in arguments]
    return subprocess.run([*argv, "-c", code, *words], env=env, capture_output=True, text=True)
