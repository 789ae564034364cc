# SPDX-License-Identifier: GPL-2.0-only
"""The agent: it imports only what the root image has, and starts the delivered entry module."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.host.rootfs import erofs_image
from fixtures.host.util.paths import ROOT

START = """
import sys
from pathlib import Path

from fixtures.guest.runtime import agent
from fixtures.wire import Message

image_copy = sys.modules["fixtures.wire"]
agent.SUITE_ROOT = Path(sys.argv[1])
agent.start_entry_module("port", Message("start", {"entry": "fixtures.server"}))
assert sys.modules["fixtures.wire"] is not image_copy
"""
SERVER = """
import fixtures.wire


def serve(port, message):
    print(port, message.kind, fixtures.wire.__file__)
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A directory with only those files of this project that are in the root image."""
    for name in erofs_image._AGENT_FILES:
        target = tmp_path / "image" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path / "image"


def _python(image: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-B", "-c", *arguments],
        cwd=image,
        env={"PYTHONPATH": str(image)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_agent_imports_only_files_of_root_image(image: Path) -> None:
    _python(image, "import fixtures.guest.runtime.agent")


def test_start_runs_delivered_entry_module(image: Path, tmp_path: Path) -> None:
    delivered = tmp_path / "suite"
    shutil.copytree(image, delivered)
    (delivered / "fixtures/server.py").write_text(SERVER)
    output = _python(image, START, str(delivered))
    assert output == f"port start {delivered}/fixtures/wire.py\n"
