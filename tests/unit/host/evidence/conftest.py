# SPDX-License-Identifier: GPL-2.0-only
"""A report, and the archive of it."""

from pathlib import Path

import pytest

from fixtures.host.evidence.cli import main
from tests.unit.host.evidence import evidence_samples


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """The folder of a report."""
    return evidence_samples.report(tmp_path / "report")


@pytest.fixture
def archive(tmp_path: Path, report: Path) -> Path:
    """A good archive."""
    path = tmp_path / "evidence.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(path)]) == 0
    return path
