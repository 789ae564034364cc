# SPDX-License-Identifier: GPL-2.0-only
"""Test ids of earlier releases, in every file that earlier releases wrote."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.evidence import evidence_archive
from fixtures.host.evidence.verify import verify
from fixtures.host.model import mutation_results, renamed_tests
from fixtures.host.model.mutation_results import MutantResult, MutantStatus, MutationResults
from fixtures.host.model.renamed_tests import TABLE, RenamedTests
from fixtures.host.model.results import Run, TestResult, Verdict
from fixtures.host.report import run_history, run_history_store, summary_json
from fixtures.host.report.flake_stats import histories
from fixtures.host.report.report_writer import write_all
from tests.unit.host.report import run_samples, section_samples

OLD = "selftests/races/test_x.py::test_that_is_found[a b]"
OTHER = "selftests/races/test_x.py::test_same"
NEW = "selftests/races/test_y.py::test_hit[a-b]"
RENAMED = RenamedTests(
    files={"selftests/races/test_x.py": "selftests/races/test_y.py"},
    tests={
        "selftests/races/test_x.py::test_that_is_found": "selftests/races/test_y.py::test_hit",
        OLD: NEW,
        # Sorts behind the others, so that the order of the tests changes.
        "selftests/races/test_x.py::test_a": "selftests/races/test_y.py::test_z",
    },
)


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use RENAMED as the table."""
    monkeypatch.setattr(renamed_tests, "_table", lambda: RENAMED)


def _old_run(at: int = 1) -> Run:
    def failed(nodeid: str) -> TestResult:
        return run_samples.result(
            nodeid, Verdict.FAILED, message=f"E   no {nodeid}", replay=f"tox -e vm -- '{nodeid}'"
        )

    tests = [failed(OLD), failed("selftests/races/test_x.py::test_a"), run_samples.result(OTHER)]
    return run_samples.run(*tests, kernel={"key": "k1"}, started=f"2026-01-{at:02}T10:00:00+00:00")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, NEW),
        (OLD.replace("[a b]", "[c]"), NEW.replace("[a-b]", "[c]")),
        (OTHER, OTHER.replace("test_x", "test_y")),
        ("selftests/races/test_x.py", "selftests/races/test_y.py"),
        (NEW, NEW),
        ("selftests/lookup/test_x.py::test_a", "selftests/lookup/test_x.py::test_a"),
        (mutation_results.BOOT, mutation_results.BOOT),
        ("", ""),
    ],
    ids=["parameters", "function", "file", "path", "current", "unknown", "boot", "empty"],
)
def test_current_id(old: str, new: str) -> None:
    assert RENAMED.current_id(old) == new
    assert RENAMED.current_id(new) == new


def test_command_with_old_id_is_mapped_and_others_are_unchanged() -> None:
    old = f"tox -e vm -- --seed 3 '{OLD}'"
    assert RENAMED.current_command(old) == f"tox -e vm -- --seed 3 '{NEW}'"
    for command in ("tox -e vm -- -k  'a  b'", "'unbalanced", ""):
        assert RENAMED.current_command(command) == command


def test_table_maps_every_old_id_to_one_current_id() -> None:
    table = RenamedTests.load(TABLE)
    for entries in (table.files, table.tests):
        assert len(set(entries.values())) == len(entries), "two old ids have the same new id"
        for old, new in entries.items():
            assert table.current_id(new) == new, f"{new}: the new id of {old} is an old id, too"


@pytest.mark.usefixtures("renamed")
def test_summary_and_history_are_read_under_current_ids(tmp_path: Path) -> None:
    write_all([_old_run()], tmp_path)
    (run,) = summary_json.read(tmp_path)
    assert [test.nodeid for test in run.tests] == [
        NEW,
        "selftests/races/test_y.py::test_same",
        "selftests/races/test_y.py::test_z",
    ]
    assert run.tests[0].replay == f"tox -e vm -- '{NEW}'"
    (record,) = run_history.read(tmp_path)
    assert record == run_history.record_of(run)
    assert record.name == run_history.record_of(run).name


@pytest.mark.usefixtures("renamed")
def test_old_and_new_runs_are_counted_together(tmp_path: Path) -> None:
    run_history_store.store_record(run_history.record_of(_old_run(1)), tmp_path)
    assert OLD.encode() in (tmp_path / run_history_store.NAME).read_bytes()
    new = summary_json.parse(summary_json.render([_old_run(2)]))[0]
    records = [*run_history_store.load_records(tmp_path), run_history.record_of(new)]
    (history,) = histories(records)
    assert history.tests == 3
    assert {flake.test: flake.failures for flake in history.flakes}[NEW] == 2


@pytest.mark.usefixtures("renamed")
def test_mutants_are_read_under_current_ids() -> None:
    (bug,) = (bug for bug in section_samples.some_mutants().mutants if bug.name == "caught")
    command = f"tox -e vm -- '{OLD}'"
    old = MutationResults("ab" * 32, (replace(bug, test=OLD, command=command),))
    (read,) = MutationResults.from_values(json.loads(old.to_json())).mutants
    assert (read.test, read.command) == (NEW, f"tox -e vm -- '{NEW}'")
    result = MutantResult.from_json({"name": "x", "fate": "killed", "test": OLD})
    assert result == MutantResult("x", MutantStatus.KILLED, test=NEW)


@pytest.mark.usefixtures("renamed")
def test_archive_with_old_ids_is_verified_unchanged(tmp_path: Path) -> None:
    write_all([_old_run()], tmp_path / "report")
    files = {f"report/{path.name}": path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert OLD.encode() in files["report/summary.json"]
    archive = tmp_path / "evidence.tar.zst"
    archive.write_bytes(evidence_archive.pack(files))
    checked = verify(archive)
    assert checked.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert checked.runs[0].tests[0].nodeid == NEW


@pytest.mark.parametrize("option", ["--mutant patches/v7.3/mutants/{}.patch", "--mutant={}.patch"])
def test_command_names_current_patch_of_mutant(option: str) -> None:
    renamed = RenamedTests(mutants={"core-old": "core-new"})
    command = f"tox -e vm -- {option}"
    assert renamed.current_command(command.format("core-old")) == command.format("core-new")
    assert renamed.current_command(command.format("core-x")) == command.format("core-x")
