# SPDX-License-Identifier: GPL-2.0-only
"""Benchmark of --affected: its edits, the runs that it starts, and its goals."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixtures.host.bench import affected_benchmark
from fixtures.host.bench.affected_benchmark import measure_edits
from fixtures.host.bench.thresholds import evaluate_goals
from fixtures.host.config.vm_profile import load_profile
from fixtures.host.kernel.patch_series import load_series
from fixtures.host.model.bench_results import AFFECTED, HARNESS_PROFILE, TIME
from fixtures.host.model.results import Verdict
from fixtures.host.report.report_writer import write_all
from fixtures.host.util.errors import InfraError
from fixtures.host.util.paths import ROOT
from tests.unit.host.bench.bench_samples import make_bench_results, make_measurement
from tests.unit.host.report import run_samples

SERIES = load_profile(HARNESS_PROFILE).kernel.series or ""
EDITS = (affected_benchmark._FIRST_EDIT, affected_benchmark._SECOND_EDIT)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a series of one patch, and the mutants that the benchmark applies."""
    root = tmp_path / "project"
    (root / SERIES / "mutants").mkdir(parents=True)
    for name in ("series", "0001-a.patch", *(f"mutants/{edit}" for edit in EDITS)):
        (root / SERIES / name).write_text("0001-a.patch\n")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for args in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run(["git", *identity, *args], cwd=root, check=True)
    monkeypatch.setattr(affected_benchmark, "ROOT", root)
    monkeypatch.setattr(affected_benchmark, "BUILD", root / "build")
    return root


def test_mutants_of_the_benchmark_exist() -> None:
    for edit in EDITS:
        text = (ROOT / SERIES / "mutants" / edit).read_text()
        assert "+++ b/net/netfilter/nf_flow_table_bpf_flowmap.c" in text


@pytest.mark.usefixtures("project")
def test_each_edit_replaces_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], bool, bool]] = []

    def run_pytest(clone: Path, args: Sequence[str], _statuses: Sequence[int]) -> None:
        series = load_series(clone / SERIES, SERIES)
        seen.append(([name for name, _ in series.patches], "--affected" in args, "-x" in args))
        write_all([run_samples.run(run_samples.result(verdict=Verdict.FAILED))], clone / "report")

    monkeypatch.setattr(affected_benchmark, "_run", run_pytest)
    first, every = measure_edits(HARNESS_PROFILE, "tcg", tmp_path)
    assert min(first, every) >= 0
    assert seen == [
        (["0001-a.patch"], False, False),
        (["0001-a.patch", EDITS[0]], True, True),
        (["0001-a.patch", EDITS[1]], True, False),
    ]


@pytest.mark.usefixtures("project")
def test_edit_that_no_test_notices_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_pytest(clone: Path, _args: Sequence[str], _statuses: Sequence[int]) -> None:
        write_all([run_samples.run(run_samples.result())], clone / "report")

    monkeypatch.setattr(affected_benchmark, "_run", run_pytest)
    with pytest.raises(InfraError, match="no affected test fails"):
        measure_edits(HARNESS_PROFILE, "tcg", tmp_path)


def test_goals_are_20_and_60_seconds() -> None:
    found = evaluate_goals(
        make_bench_results(
            [
                make_measurement(
                    AFFECTED, seconds * 1e9, machine=TIME, profile=HARNESS_PROFILE, until=until
                )
                for until, seconds in (("first failure", 15.0), ("all tests", 90.0))
            ]
        )
    )
    assert [(goal.value, goal.met) for goal in found] == [(0.75, True), (1.5, False)]
    assert "--affected, from an edit to the first failure / 20 s" in found[0].text
