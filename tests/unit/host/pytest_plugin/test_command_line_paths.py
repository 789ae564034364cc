# SPDX-License-Identifier: GPL-2.0-only
"""`tox -e vm -- --kernel-tree PATH`: options with a path after a space, in real pytest runs."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.host.kernel.kernel_cli_options import OPTIONS
from fixtures.host.util.paths import ROOT

_TEST = "selftests/lookup/test_hit.py"


def _tox_addopts() -> str:
    """Return PYTEST_ADDOPTS of tox.ini's environment vm, without the user's own."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    lines = tox["testenv:vm"]["set_env"].splitlines()
    (value,) = (line.partition("=")[2] for line in lines if line.startswith("PYTEST_ADDOPTS"))
    return value.replace("{env:PYTEST_ADDOPTS:}", "").strip()


def _run_pytest(*args: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run pytest as tox does, but list tests only."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *args],
        cwd=ROOT,
        env={**env, "PYTEST_ADDOPTS": _tox_addopts(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_existing_path_after_space_is_option_value(tmp_path: Path) -> None:
    path_options = [option.flag for option in OPTIONS if option.is_path]
    assert "--kernel-tree" in path_options
    words = [word for flag in path_options for word in (flag, tmp_path)]
    done = _run_pytest(*words, "--report", tmp_path, _TEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{_TEST}::" in done.stdout


def test_without_test_paths_the_suite_is_selected(tmp_path: Path) -> None:
    done = _run_pytest("--kernel-tree", tmp_path, "-k", "no_test_has_this_name")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    assert " deselected" in done.stdout


def test_option_without_equals_sign_keeps_the_root_directory(tmp_path: Path) -> None:
    done = _run_pytest("--kernel-tree", tmp_path, "--no-such-option")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unrecognized arguments: --no-such-option\n" in done.stderr
    assert f"rootdir: {ROOT}\n" in done.stderr
