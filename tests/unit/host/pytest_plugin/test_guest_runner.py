# SPDX-License-Identifier: GPL-2.0-only
"""Files that a test leaves: written below the report, or a verdict that says why not."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.execution.run_test_in_vm import Execution
from fixtures.host.execution.verdict import TestVerdict
from fixtures.host.model.results import Verdict
from fixtures.host.pytest_plugin.guest_runner import GuestRunner
from tests.unit.host.util.small_file_system import fill, small_file_system

ITEM = cast(pytest.Item, SimpleNamespace(nodeid="selftests/a/test_b.py::test_c[d]"))


def runner(report: Path) -> GuestRunner:
    """Return a runner that only knows its report directory."""
    made = GuestRunner.__new__(GuestRunner)
    made._context = SimpleNamespace(report=report)  # type: ignore[assignment]
    made._label = ""
    return made


def test_artefacts_of_failed_test_are_written(tmp_path: Path) -> None:
    done = Execution(0, console="text", artefacts={"../../x.txt": b"x"}, gcov_archive=b"tar")
    verdict = TestVerdict(Verdict.FAILED, "why")
    assert runner(tmp_path)._write_files(ITEM, done, verdict) == (
        verdict,
        ("artefacts/a-test_b.py-test_c-d/x.txt", "artefacts/a-test_b.py-test_c-d/console.log"),
    )
    assert (tmp_path / "coverage").is_dir()


@pytest.mark.parametrize("gcov", [b"", bytes(1 << 20)], ids=["artefacts", "coverage"])
def test_full_disk_is_infra_and_keeps_message(tmp_path: Path, gcov: bytes) -> None:
    with small_file_system(tmp_path / "report", 64) as report:
        fill(report)
        done = Execution(0, artefacts={"x": bytes(1 << 20)}, gcov_archive=gcov)
        verdict, paths = runner(report)._write_files(
            ITEM, done, TestVerdict(Verdict.FAILED, "assert 1 == 2")
        )
    assert verdict.verdict is Verdict.INFRA
    assert "No space left on device" in verdict.message
    assert "failed: assert 1 == 2" in verdict.message
    assert paths == ()
