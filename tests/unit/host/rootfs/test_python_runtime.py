# SPDX-License-Identifier: GPL-2.0-only
"""Python in the image: where the interpreter looks for its standard library."""

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.host.rootfs import python_runtime


@pytest.mark.parametrize("name", ["lib", "lib64"])
def test_standard_library_is_below_platlibdir(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Fedora's interpreter has lib64, Debian's lib."""
    monkeypatch.setattr(sys, "platlibdir", name)
    places = {str(destination) for _, destination in python_runtime.stdlib_files()}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert f"opt/python/{name}/{version}/os.py" in places
    assert all(place.startswith(f"opt/python/{name}/{version}/") for place in places)


def test_interpreter_finds_standard_library_there(tmp_path: Path) -> None:
    for source, destination in python_runtime.stdlib_files():
        if source.suffix == ".py":
            copy = tmp_path / destination
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(source)
    env = {"PYTHONHOME": str(tmp_path / python_runtime.PYTHON_HOME)}
    argv = [str(python_runtime.interpreter_path()), "-S", "-c", "import os; print(os.__file__)"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path / "opt/python")), done.stderr
