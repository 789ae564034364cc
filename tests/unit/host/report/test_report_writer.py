# SPDX-License-Identifier: GPL-2.0-only
"""Write reports into a folder, merge runs, and print the verdict."""

from pathlib import Path

import pytest

from fixtures.host.report.report_writer import write_all
from fixtures.host.util.errors import UserError
from tests.unit.host.report import run_samples

FILES = [
    "cover-letter.txt",
    "junit.xml",
    "kcidb.json",
    "ledger.json",
    "report.html",
    "results.ktap",
    "summary.json",
    "summary.md",
]


def test_all_files_are_written_and_no_others(tmp_path: Path) -> None:
    judgement = write_all(
        [run_samples.large(1)], tmp_path / "new" / "report", run_samples.contract(tmp_path)
    )
    assert not judgement.ok
    assert sorted(path.name for path in (tmp_path / "new" / "report").iterdir()) == FILES


def test_without_contract_the_matrix_has_the_clauses_of_tests(tmp_path: Path) -> None:
    write_all(
        [run_samples.run(run_samples.result(clauses=("MM-1",)))], tmp_path, tmp_path / "none.md"
    )
    assert "Not in the contract" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="file/report"):
        write_all([run_samples.run(run_samples.result())], tmp_path / "file" / "report")


def test_merged_report_lists_every_run(tmp_path: Path) -> None:
    host = {"cpu": "Another CPU", "distro": "Fedora 42"}
    here = run_samples.run(run_samples.result())
    there = run_samples.run(
        run_samples.result(), accel="kvm", host=host, started="2026-02-03T04:05:06+02:00"
    )
    write_all([here, there], tmp_path, run_samples.contract(tmp_path))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sources = page[page.index('id="sources"') : page.index('id="run-1"')]
    for words in ("2026-01-01 10:00 UTC", "2026-02-03 02:05 UTC", "Another CPU, Fedora 42"):
        assert words in sources
    assert ">kvm<" in sources
    assert ">tcg<" in sources
