# SPDX-License-Identifier: GPL-2.0-only
"""Archive of a run: build inputs beside the report and run history in the cache."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.kernel import kernel_cache
from fixtures.host.model.results import Run
from fixtures.host.pytest_plugin import inputs_and_history
from fixtures.host.pytest_plugin.run_context import RunContext
from fixtures.host.report import run_history_store
from tests.unit.host.report import run_samples

KERNEL: dict[str, Any] = {"key": "abc123", "source": {"kind": "debian"}, "series": None}


class FakeContext(SimpleNamespace):
    """The part of a run's context that the archive needs."""

    def archive(
        self, result: Run, no_history: bool = False, mutant: str | None = None
    ) -> tuple[int, list[str]]:
        """Archive a run; return the number of history records and the log lines."""
        lines: list[str] = []
        options = {"no_history": no_history, "kernel_mutant": mutant}
        config = SimpleNamespace(getoption=options.__getitem__)
        records = inputs_and_history.archive_run(
            result, cast(RunContext, self), cast(pytest.Config, config), lines.append
        )
        return len(records), lines


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    """Context of a run on a kernel that is in the cache."""
    built = tmp_path / "cache/kernels/abc123"
    built.mkdir(parents=True)
    (built / "config").write_text("CONFIG_BPF=y\n")
    (built / "build.log").write_text("CC\n")
    return FakeContext(
        metadata=KERNEL, cache=tmp_path / "cache", report=tmp_path / "report", baseline=None
    )


def _run(at: int, nodeid: str = "selftests/snoop/test_a.py::t") -> Run:
    return run_samples.run(run_samples.result(nodeid), kernel=KERNEL, started=f"2026-01-0{at}")


def test_next_run_finds_record_of_last_run(context: FakeContext) -> None:
    assert context.archive(_run(1)) == (1, [])
    assert context.archive(_run(2)) == (2, [])


def test_excluded_runs_are_not_in_history(context: FakeContext) -> None:
    context.archive(_run(1), no_history=True)
    context.archive(_run(2, "tests/canary/faulty_tests/test_a.py::t"))
    context.archive(_run(3), mutant="x.patch")
    assert list(run_history_store.load_records(context.cache)) == []


def test_build_inputs_are_beside_report_until_next_run(context: FakeContext) -> None:
    context.archive(_run(1))
    config = context.report / "inputs/abc123/config"
    assert config.read_text() == "CONFIG_BPF=y\n"
    inputs_and_history.remove_previous(cast(RunContext, context))
    assert not config.exists()


def test_unwritable_cache_is_logged_only(context: FakeContext) -> None:
    (context.cache / "ledger").write_text(
        "a file where a directory is needed; root cannot write either"
    )
    records, lines = context.archive(_run(1))
    assert records == 1
    assert len(lines) == 1
    assert "cannot use the run history" in lines[0]


def test_missing_build_inputs_are_logged_only(context: FakeContext) -> None:
    (context.cache / "kernels/abc123/config").unlink()
    records, lines = context.archive(_run(1))
    assert records == 1
    assert "no longer in the cache" in lines[0]


def test_series_edited_meanwhile_is_archived_as_it_was_applied(context: FakeContext) -> None:
    content = b"the patch before the edit"
    sha256 = hashlib.sha256(content).hexdigest()
    stored = context.cache / "kernels/abc123" / kernel_cache.PATCHES
    stored.mkdir()
    (stored / sha256).write_bytes(content)
    patches = [{"name": "0001-a.patch", "sha256": sha256}]
    series = {"name": "patches/v7.3", "sha256": "0" * 64, "patches": patches}
    context.metadata = {**KERNEL, "series": series}
    _, lines = context.archive(_run(1))
    assert lines == []
    assert (context.report / "inputs/abc123/series/0001-a.patch").read_bytes() == content


def test_series_without_stored_copy_is_not_archived_if_edited(context: FakeContext) -> None:
    series = {"name": "patches/v7.3", "sha256": "0" * 64, "patches": [{"name": "a"}]}
    context.metadata = json.loads(json.dumps({**KERNEL, "series": series}))
    _, lines = context.archive(_run(1))
    assert "not the series of this run" in lines[0]
    assert not (context.report / "inputs").exists()
