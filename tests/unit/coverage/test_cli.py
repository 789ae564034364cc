# SPDX-License-Identifier: GPL-2.0-only
"""How ``tox -e coverage`` runs the suite."""

import subprocess
from pathlib import Path

import pytest

from fixtures.host.coverage import cli
from fixtures.host.paths import ROOT


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Arguments of each pytest that would have been run; it fails."""
    calls: list[list[str]] = []

    def run(args: list[str], *, env: dict[str, str], **_: object) -> object:
        assert env["PYTEST_ADDOPTS"].split()[-1] == "--seed=7"
        assert "testpaths=selftests" in env["PYTEST_ADDOPTS"]
        calls.append(args)
        return subprocess.CompletedProcess(args, returncode=5)

    monkeypatch.setenv("PYTEST_ADDOPTS", "--seed=7")
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_command_on_record_repeats_the_run_in_any_clone(asked: list[list[str]]) -> None:
    assert cli._run(ROOT / "build/coverage", ["-k", "udp"]) == 5
    (args,) = asked
    assert args[3:] == ["--vmconfig=coverage", "--report=build/coverage", "-k", "udp"]


def test_report_outside_of_the_clone_goes_where_it_was_asked_for(
    asked: list[list[str]], tmp_path: Path
) -> None:
    cli._run(tmp_path, [])
    (args,) = asked
    assert f"--report={tmp_path}" in args
