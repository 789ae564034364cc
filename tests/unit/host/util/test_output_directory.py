# SPDX-License-Identifier: GPL-2.0-only
"""Report folders: one for each run, kept for a while, never written by two runs."""

from pathlib import Path

import pytest

from fixtures.host.util import output_directory
from fixtures.host.util.errors import UserError
from fixtures.host.util.output_directory import (
    hold_output_directory,
    hold_report_directory,
    publish_report,
)
from tests.unit.host.util.lock_holder import lock_holder


def test_runs_side_by_side_have_reports_of_their_own(tmp_path: Path) -> None:
    reports, link = tmp_path / "reports", tmp_path / "report"
    with hold_report_directory(None, reports) as whole, hold_report_directory(None, reports) as one:
        assert whole != one
        for folder, text in ((whole, "whole suite"), (one, "one test")):
            (folder / "summary.json").write_text(text)
            assert publish_report(folder, link) == link
            assert (link / "summary.json").read_text() == text
    assert (whole / "summary.json").read_text() == "whole suite"


def test_report_of_earlier_version_is_kept(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/summary.json").write_text("old")
    with hold_report_directory(None, tmp_path / "reports") as folder:
        (folder / "summary.json").write_text("new")
        publish_report(folder, tmp_path / "report")
    assert (tmp_path / "report/summary.json").read_text() == "new"
    texts = {path.read_text() for path in (tmp_path / "reports").glob("*/summary.json")}
    assert texts == {"old", "new"}


def test_run_without_report_leaves_no_folder(tmp_path: Path) -> None:
    with hold_report_directory(None, tmp_path / "reports"):
        pass
    assert list((tmp_path / "reports").iterdir()) == []


def test_oldest_reports_are_removed_but_not_while_their_run_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_directory, "KEPT_REPORTS", 2)
    for name in ("1", "2", "3", "4"):
        (tmp_path / name).mkdir()
    with lock_holder(tmp_path / "1"), hold_report_directory(None, tmp_path):
        assert [(tmp_path / name).exists() for name in "1234"] == [True, False, True, True]


def test_chosen_folder_of_live_run_is_refused(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    with (
        lock_holder(chosen),
        pytest.raises(UserError, match=r"another run writes to it: choose another with --report"),
        hold_report_directory(chosen),
    ):
        pass
    with hold_report_directory(chosen) as held:
        assert publish_report(held, tmp_path / "report") == chosen
    assert not (tmp_path / "report").exists()


def test_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file.*choose a folder"),
        hold_output_directory(tmp_path / "file/out", "--to"),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"file.*choose a folder"),
        hold_report_directory(None, tmp_path / "file/reports"),
    ):
        pass
