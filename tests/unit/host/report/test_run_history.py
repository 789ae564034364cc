# SPDX-License-Identifier: GPL-2.0-only
"""Run history: records, statistics, storage in the cache, and damaged files."""

import json
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.host.model.results import Run, Verdict
from fixtures.host.report import cover_letter, html_report, run_history, run_history_store
from fixtures.host.report.flake_stats import histories, percent, summary_sentence
from fixtures.host.report.report_writer import write_all
from fixtures.host.report.run_history import RunRecord
from fixtures.host.report_command.cli import main
from fixtures.host.util.errors import UserError
from fixtures.host.util.zstd_compat import zstd
from tests.unit.host.report import run_samples

STEADY = "selftests/snoop/test_a.py::test_steady"
FLAKY = "selftests/races/test_b.py::test_flaky"


def _run(at: int, flaky: Verdict = Verdict.PASSED, key: str = "k1", **more: object) -> Run:
    return run_samples.run(
        run_samples.result(STEADY),
        run_samples.result(
            FLAKY, flaky, message="" if flaky is Verdict.PASSED else f"E   lost in {at}"
        ),
        kernel={"key": key},
        started=f"2026-01-{at:02}T10:00:00+00:00",
        **more,
    )


def _records(*verdicts: Verdict) -> list[RunRecord]:
    return [run_history.record_of(_run(at, verdict)) for at, verdict in enumerate(verdicts, 1)]


def test_runs_and_failures_are_counted_per_test() -> None:
    records = _records(*[Verdict.PASSED] * 17, Verdict.HANG, Verdict.SKIPPED, Verdict.FAILED)
    (history,) = histories(records)
    assert (history.runs, history.clean_runs, history.tests, history.results) == (20, 18, 2, 39)
    (flake,) = history.flakes
    assert (flake.test, flake.runs, flake.failures) == (FLAKY, 19, 2)
    assert flake.verdicts == {"hang": 1, "failed": 1}
    assert (flake.last, flake.message) == ("2026-01-20T10:00:00+00:00", "lost in 20")
    assert summary_sentence(history) == (
        "20 runs of 2 tests, 0 of the complete suite, 18 without a failure; 2 of 39 results"
        " failed (5.1 %), in 1 test."
    )


def test_kernels_and_profiles_are_counted_separately() -> None:
    runs = [_run(1), _run(2, Verdict.PANIC, key="k2"), _run(3, Verdict.SPLAT, profile="debug")]
    found = histories([run_history.record_of(run) for run in runs])
    assert [(item.kernel, item.profile, item.failures) for item in found] == [
        ("k1", "base", 0),
        ("k2", "base", 1),
        ("k1", "debug", 1),
    ]


def test_report_history_has_its_own_kernels_only_and_each_run_once() -> None:
    runs = [_run(1), _run(2), _run(2, key="k2"), _run(1)]
    known = [run_history.record_of(run) for run in runs]
    assert run_history.records_for_runs([_run(2)], known) == [known[0], known[1]]


def test_order_of_results_does_not_change_the_record() -> None:
    run = _run(1, Verdict.FAILED)
    again = Run(run.info, tuple(reversed(run.tests)))
    assert run_history.record_of(run).name == run_history.record_of(again).name


@given(st.lists(st.dictionaries(st.text(max_size=5), st.sampled_from(Verdict)), max_size=4))
def test_records_round_trip_through_json(verdicts: list[dict[str, Verdict]]) -> None:
    records = [
        RunRecord(
            profile="base", kernel="k", started=str(at), verdicts=found, said={"ü\ud800": "x"}
        )
        for at, found in enumerate(verdicts)
    ]
    assert run_history.parse(run_history.render(records)) == records


def test_history_next_to_a_report_is_merged(tmp_path: Path) -> None:
    contract = run_samples.contract(tmp_path)
    write_all([_run(2)], tmp_path / "a", contract, _records(Verdict.FAILED))
    write_all([_run(3)], tmp_path / "b", contract)
    args = ["--contract", str(contract), "--to", str(tmp_path / "c"), "--from"]
    assert main([*args, str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    (history,) = histories(run_history.read(tmp_path / "c"))
    assert (history.runs, history.failures) == (3, 1)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"schema_version": 1, "tests": [1], "runs": []}', "[" * 100_000],
    ids=["truncated", "list", "no-fields", "number-as-id", "deep"],
)
def test_malformed_history_is_refused(tmp_path: Path, text: str) -> None:
    write_all([_run(1)], tmp_path)
    (tmp_path / run_history.NAME).write_text(text)
    with pytest.raises(UserError, match=r"ledger\.json: not a run history"):
        run_history.read(tmp_path)
    assert main(["--from", str(tmp_path)]) == 2


def test_unknown_verdict_letter_is_refused() -> None:
    values = json.loads(run_history.render(_records(Verdict.PASSED)))
    values["runs"][0]["verdicts"] = "?."
    with pytest.raises(KeyError):
        run_history.parse(json.dumps(values))
    values["runs"][0]["verdicts"] = "."
    with pytest.raises(ValueError, match="shorter"):
        run_history.parse(json.dumps(values))


def test_flaky_tests_are_in_page_and_cover_letter() -> None:
    past = histories(_records(Verdict.PASSED, Verdict.FAILED))
    page = html_report.render([_run(1)], (), past)
    assert "1 of 4 results failed (25 %)" in page
    assert "lost in 2" in page
    assert "1 of 4 results failed (25 %)" in " ".join(
        cover_letter.render([_run(1)], (), past).split()
    )


def test_percent_has_two_significant_digits() -> None:
    assert [percent(1, 8300), percent(1, 3), percent(3, 3)] == ["0.012 %", "33 %", "100 %"]


# --- in the cache


def test_stored_records_are_loaded(tmp_path: Path) -> None:
    records = _records(Verdict.PASSED, Verdict.FAILED)
    for record in [*records, records[0]]:
        run_history_store.store_record(record, tmp_path)
    assert list(run_history_store.load_records(tmp_path)) == records
    assert not list(tmp_path.rglob(".*"))


def test_oldest_records_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history_store, "MAX_RUNS", 3)
    records = _records(*[Verdict.PASSED] * 5)
    for record in records:
        run_history_store.store_record(record, tmp_path)
    assert list(run_history_store.load_records(tmp_path)) == records[2:]


def test_least_recent_kernels_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history_store, "MAX_GROUPS", 2)
    for key in ("k3", "k2", "k1"):
        run_history_store.store_record(run_history.record_of(_run(1, key=key)), tmp_path)
    assert [record.kernel for record in run_history_store.load_records(tmp_path)] == ["k1", "k2"]


def _write_v0_2(cache: Path, name: str, data: bytes) -> None:
    path = cache / "ledger/k1-base" / f"{name}.json.zst"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_readable_files_of_v0_2_are_imported_once(tmp_path: Path) -> None:
    old, new = _records(Verdict.PASSED, Verdict.FAILED)
    _write_v0_2(tmp_path, "w", zstd.compress(run_history.render([old]).encode()))
    _write_v0_2(tmp_path, "x", b"no zstd")
    _write_v0_2(tmp_path, "y", zstd.compress(b"{}"))
    assert list(run_history_store.load_records(tmp_path)) == [old]
    run_history_store.store_record(new, tmp_path)
    assert list(run_history_store.load_records(tmp_path)) == [old, new]


def test_stored_record_keeps_its_name_without_messages(tmp_path: Path) -> None:
    record = RunRecord("base", "k", verdicts={"b": Verdict.PANIC}, said={"b": ""})
    run_history_store.store_record(record, tmp_path)
    assert [loaded.name for loaded in run_history_store.load_records(tmp_path)] == [record.name]


def test_durations_are_stored(tmp_path: Path) -> None:
    (record,) = _records(Verdict.PASSED)
    run_history_store.store_record(record, tmp_path)
    (loaded,) = run_history_store.load_records(tmp_path)
    assert loaded.seconds == {STEADY: 0.75, FLAKY: 0.75}


@pytest.mark.parametrize("content", [b"no database" * 100, None], ids=["damaged", "later-version"])
def test_unusable_database_is_an_os_error_with_its_path(
    tmp_path: Path, content: bytes | None
) -> None:
    (record,) = _records(Verdict.PASSED)
    path = tmp_path / run_history_store.NAME
    path.parent.mkdir()
    if content is None:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"history\.sqlite"):
        run_history_store.store_record(record, tmp_path)
    assert path.read_bytes() == before


def test_runs_side_by_side_are_all_stored(tmp_path: Path) -> None:
    records = _records(*[Verdict.PASSED] * 8)
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        list(pool.map(run_history_store.store_record, records, [tmp_path] * len(records)))
    assert list(run_history_store.load_records(tmp_path)) == records


def test_records_of_one_kernel_and_profile_are_loaded(tmp_path: Path) -> None:
    records = [run_history.record_of(_run(at, key=key)) for at, key in enumerate(["k1", "k2"], 1)]
    for record in records:
        run_history_store.store_record(record, tmp_path)
    assert list(run_history_store.load_records(tmp_path, records[1].group)) == records[1:]
    assert list(run_history_store.load_records(tmp_path, ("debug", "k1"))) == []


def test_hostile_names_do_not_escape_the_cache(tmp_path: Path) -> None:
    record = RunRecord(profile="../../x", kernel="/etc", started="../2026")
    run_history_store.store_record(record, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert list(run_history_store.load_records(tmp_path / "cache")) == [record]
    assert list(run_history_store.load_records(tmp_path / "cache", record.group)) == [record]


def test_records_of_a_whole_suite_are_small(tmp_path: Path) -> None:
    verdicts = {f"{FLAKY}_of_many[{at}-{at * 7919 % 1009}]": Verdict.PASSED for at in range(500)}
    for at in range(20):
        record = RunRecord(
            profile="base",
            kernel="k",
            started=str(at),
            verdicts=verdicts,
            seconds=dict.fromkeys(verdicts, 1.25),
        )
        run_history_store.store_record(record, tmp_path)
    assert (tmp_path / run_history_store.NAME).stat().st_size < 20 * 32 << 10


def test_history_option_prints_the_stored_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path))
    assert main(["--history"]) == 0
    for record in _records(Verdict.PASSED, Verdict.FAILED):
        run_history_store.store_record(record, tmp_path)
    assert main(["--history"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run history: no runs stored"
    assert lines[1].startswith("run history: base, 7.3.4-suite, kernel k1: 2 runs of 2 tests,")
    assert lines[2] == f"  1 of 2 (50 %) {FLAKY}: lost in 2"


def test_run_is_complete_if_every_test_of_the_suite_has_a_verdict() -> None:
    runs = [
        _run(1, suite_size=2),
        _run(2, Verdict.SKIPPED, suite_size=2),
        _run(3, suite_size=3),
        _run(4, suite_size=2, interrupted=True),
        _run(5),
    ]
    records = [run_history.record_of(run) for run in runs]
    assert [record.is_complete for record in records] == [True, True, False, False, False]
    (history,) = histories(records)
    assert (history.runs, history.complete_runs) == (5, 2)
    assert summary_sentence(history).startswith("5 runs of 2 tests, 2 of the complete suite, ")


def test_histories_of_several_machines_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there, both = (tmp_path / name for name in ("here", "there", "both"))
    records = _records(Verdict.PASSED, Verdict.FAILED, Verdict.PASSED)
    for record in records[1:]:
        run_history_store.store_record(record, here)
    run_history.write(there, records[:2])
    monkeypatch.setenv("FLOWMAP_CACHE", str(here))
    assert main(["--history", "--from", str(there), "--to", str(both)]) == 0
    assert "3 runs of 2 tests," in capsys.readouterr().out
    assert run_history.read(both) == records
    before = (both / run_history.NAME).read_bytes()
    assert main(["--history", "--from", str(both), "--to", str(both)]) == 0
    assert (both / run_history.NAME).read_bytes() == before


def test_folder_without_history_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--history", "--from", str(tmp_path), "--to", str(tmp_path / "to")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f"error: {tmp_path}: no ledger.json with a run in it: name the folder of a report"
    )
    assert not (tmp_path / "to").exists()
