# SPDX-License-Identifier: GPL-2.0-only
"""What a run leaves beside its report and in the cache, also where it may not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.model.results import Run
from fixtures.host.pytest_plugin import run_archive
from fixtures.host.pytest_plugin.run_context import Context
from fixtures.host.report import run_history_store
from tests.unit.host.report import run_samples

KERNEL: dict[str, Any] = {"key": "abc123", "source": {"kind": "debian"}, "series": None}


class Plan(SimpleNamespace):
    """As much of a run as matters here."""

    def run(
        self, result: Run, no_ledger: bool = False, mutant: str | None = None
    ) -> tuple[int, list[str]]:
        """Return how many records a finished run finds, and what was said."""
        said: list[str] = []
        options = {"no_ledger": no_ledger, "kernel_mutant": mutant}
        config = SimpleNamespace(getoption=options.__getitem__)
        context = cast(Context, self)
        found = run_archive.after(result, context, cast(pytest.Config, config), said.append)
        return len(found), said


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A run on a kernel in a cache."""
    built = tmp_path / "cache/kernels/abc123"
    built.mkdir(parents=True)
    (built / "config").write_text("CONFIG_BPF=y\n")
    (built / "build.log").write_text("CC\n")
    return Plan(metadata=KERNEL, cache=tmp_path / "cache", report=tmp_path / "report", against=None)


def _run(at: int, nodeid: str = "selftests/snoop/test_a.py::t") -> Run:
    return run_samples.run(run_samples.result(nodeid), kernel=KERNEL, started=f"2026-01-0{at}")


def test_the_next_run_knows_of_the_last(plan: Plan) -> None:
    assert plan.run(_run(1)) == (1, [])
    assert plan.run(_run(2)) == (2, [])


def test_a_run_that_is_not_to_be_kept_is_not(plan: Plan) -> None:
    plan.run(_run(1), no_ledger=True)
    plan.run(_run(2, "tests/canary/faulty_tests/test_a.py::t"))
    plan.run(_run(3), mutant="x.patch")
    assert list(run_history_store.kept(plan.cache)) == []


def test_inputs_are_beside_the_report_until_the_next_run(plan: Plan) -> None:
    plan.run(_run(1))
    config = plan.report / "inputs/abc123/config"
    assert config.read_text() == "CONFIG_BPF=y\n"
    run_archive.clear(cast(Context, plan))
    assert not config.exists()


def test_a_cache_that_cannot_be_written_to_fails_no_run(plan: Plan) -> None:
    (plan.cache / "ledger").write_text("in the way, also for root")
    found, said = plan.run(_run(1))
    assert found == 1
    assert len(said) == 1
    assert "not kept in the flake ledger" in said[0]


def test_inputs_that_are_gone_fail_no_run(plan: Plan) -> None:
    (plan.cache / "kernels/abc123/config").unlink()
    found, said = plan.run(_run(1))
    assert found == 1
    assert "not in the cache any more" in said[0]


def test_a_series_that_was_edited_meanwhile_is_not_taken_for_the_one_that_ran(plan: Plan) -> None:
    series = {"name": "patches/v7.3", "sha256": "0" * 64, "patches": [{"name": "a"}]}
    plan.metadata = json.loads(json.dumps({**KERNEL, "series": series}))
    _, said = plan.run(_run(1))
    assert "not the series of this run" in said[0]
    assert not (plan.report / "inputs").exists()
