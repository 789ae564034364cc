# SPDX-License-Identifier: GPL-2.0-only
"""Comparison of two runs, and trends of a test, on the command line of tox -e report."""

from pathlib import Path

import pytest

from fixtures.host.model.results import Verdict
from fixtures.host.report import run_history, run_history_store
from fixtures.host.report.report_writer import write_all
from fixtures.host.report.run_comparison import compare
from fixtures.host.report.run_history import RunRecord
from fixtures.host.report.trends import trends
from fixtures.host.report_command.cli import main
from tests.unit.host.report import run_samples

P, F, S, H, Y = (
    Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED, Verdict.HANG, Verdict.FLAKY,
)  # fmt: skip


def _record(verdicts: dict[str, Verdict], seconds: dict[str, float] | None = None) -> RunRecord:
    return RunRecord("base", "k", verdicts=verdicts, seconds=seconds or {})


def test_each_difference_is_in_one_list() -> None:
    first = _record({"a": P, "b": F, "c": F, "d": P, "e": S, "f": P, "g": F})
    second = _record({"a": F, "b": P, "c": H, "e": Y, "f": P, "h": P, "i": F, "g": S})
    found = compare([first], [second])
    names = {
        name: "".join(change.test for change in getattr(found, name))
        for name in ("new_failures", "fixed", "still_failing", "only_first", "only_second")
    }
    assert names == {
        "new_failures": "aei",
        "fixed": "b",
        "still_failing": "c",
        "only_first": "d",
        "only_second": "h",
    }
    assert found.passed_in_both == 1
    assert not found.ok


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [(1, 1.9, ""), (1, 2.1, "slower"), (10, 12, ""), (2.1, 1, "faster"), (0, 9, "")],
    ids=["short", "slower", "small", "faster", "not-recorded"],
)
def test_slower_needs_a_factor_and_seconds(before: float, after: float, name: str) -> None:
    found = compare([_record({"a": P}, {"a": before})], [_record({"a": P}, {"a": after})])
    assert [kind for kind in ("slower", "faster") if getattr(found, kind)] == ([name] * bool(name))
    assert found.ok


def test_runs_of_several_profiles_are_compared_by_profile() -> None:
    other = RunRecord("debug", "k", verdicts={"a": F})
    found = compare([_record({"a": P}), other], [_record({"a": F}), other])
    assert [change.test for change in found.new_failures] == ["a [base]"]


def test_trend_has_a_line_for_each_kernel() -> None:
    records = [
        RunRecord(
            "base",
            key,
            release="7.3.4",
            accel="tcg",
            started=f"2026-01-0{at}T00:00",
            verdicts={"x::t": verdict},
            seconds={"x::t": float(at)},
        )
        for at, (key, verdict) in enumerate([("k1", P), ("k2", P), ("k1", F), ("k1", S)], 1)
    ]
    lines = [str(kernel) for kernel in trends(records, "::t")["x::t"]]
    assert lines == [
        "7.3.4 (base, kernel k1, tcg): 2 runs, 1 failed, median 1.0 s, 2026-01-01 to 2026-01-03",
        "7.3.4 (base, kernel k2, tcg): 1 run, 0 failed, median 2.0 s, 2026-01-02",
    ]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the history of three runs; the second one fails."""
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    for day, verdict in enumerate([P, F, P], 1):
        run = run_samples.run(
            run_samples.result("selftests/snoop/test_a.py::test_a", verdict),
            started=f"2026-01-0{day}T10:00:00+00:00",
        )
        write_all([run], tmp_path / f"report{day}")
        run_history_store.store_record(run_history.record_of(run), tmp_path / "cache")
    return tmp_path


@pytest.mark.parametrize(
    ("first", "second", "status", "line"),
    [
        ("latest~2", "latest~1", 1, "latest~2 -> latest~1: 1 new failure, 0 fixed, "),
        ("latest~1", "latest", 0, "latest~1 -> latest: 0 new failures, 1 fixed, "),
        ("2026-01-02", "2026-01-03", 0, "2026-01-02 -> 2026-01-03: 0 new failures, 1 fixed, "),
    ],
    ids=["new-failure", "fixed", "times"],
)
def test_recorded_runs_are_compared(
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    first: str,
    second: str,
    status: int,
    line: str,
) -> None:
    assert cache.exists()
    assert main(["--compare", first, second]) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith(line)


def test_folders_are_compared(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--compare", str(cache / "report1"), str(cache / "report2/summary.json")]) == 1
    assert "new failures (1):" in capsys.readouterr().out


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["latest~3", "2026-01", "2027", "no/such/folder"])
def test_unknown_run_is_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--compare", name, "latest"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: ")


@pytest.mark.usefixtures("cache")
def test_trend_option_prints_tests_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trend", "test_a.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "selftests/snoop/test_a.py::test_a"
    assert "3 runs, 1 failed" in lines[1]
    assert main(["--trend", "no_such_test"]) == 2
