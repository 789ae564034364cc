# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: a report, and its archive."""

from pathlib import Path

import pytest

from fixtures.host.evidence.cli import main
from tests.unit.host.evidence import evidence_samples


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Folder of a report with kernel inputs."""
    return evidence_samples.report(tmp_path / "report")


@pytest.fixture
def archive(tmp_path: Path, report: Path) -> Path:
    """An evidence archive of the report."""
    path = tmp_path / "evidence.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(path)]) == 0
    return path
