# SPDX-License-Identifier: GPL-2.0-only
"""``tox -e coverage``: how it runs pytest."""

import subprocess
from pathlib import Path

import pytest

from fixtures.host.coverage import cli


def test_report_directory_is_passed_by_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[list[str], str]] = []

    def run(args: list[str], *, env: dict[str, str], **_: object) -> object:
        calls.append((args[3:], env["FLOWMAP_REPORT"]))
        return subprocess.CompletedProcess(args, returncode=5)

    monkeypatch.setattr(subprocess, "run", run)
    assert cli._run(tmp_path, ["-k", "udp"]) == 5
    assert calls == [(["--vmconfig=coverage", "-k", "udp"], str(tmp_path))]
