# SPDX-License-Identifier: GPL-2.0-only
"""Command line of tox -e report: rendering again, merging, and malformed input."""

import io
import json
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.host.report import summary_json
from fixtures.host.report.report_writer import write_all
from fixtures.host.report_command.cli import main
from tests.unit.host.report import run_samples, section_samples


def test_rendering_again_gives_the_same_bytes(tmp_path: Path) -> None:
    contract = run_samples.contract(tmp_path)
    write_all([run_samples.large(1)], tmp_path / "a", contract, sections=section_samples.ABSENT)
    args = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--contract", str(contract)]
    assert main(args) == 1
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_merged_report_can_be_merged_again(tmp_path: Path) -> None:
    contract = run_samples.contract(tmp_path)
    write_all(
        [
            run_samples.run(run_samples.result()),
            run_samples.run(run_samples.result(), profile="debug"),
        ],
        tmp_path / "a",
    )
    args = ["--contract", str(contract), "--to", str(tmp_path / "b"), "--from", str(tmp_path / "a")]
    assert main(args) == 0
    assert len(summary_json.read(tmp_path / "b")) == 2


def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--from", str(tmp_path)]) == 2
    assert main(["--from", str(tmp_path), str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "error"]


_anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 9),
    st.floats(),
    st.sampled_from(["", "passed", "\0", "9" * 30]),
    st.just([None]),
    st.just({"a": [1]}),
)


@settings(max_examples=100)
@given(st.data())
def test_edited_summary_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    """Any value at any place: no traceback, and status 0, 1 or 2."""
    values = json.loads(summary_json.render([run_samples.run(*run_samples.large(1, 3).tests)]))
    place: Any = values
    while True:
        name = data.draw(
            st.sampled_from([*place] if isinstance(place, dict) else range(len(place)))
        )
        if isinstance(place[name], (dict, list)) and place[name] and data.draw(st.booleans()):
            place = place[name]
            continue
        if isinstance(place, dict) and data.draw(st.booleans()):
            del place[name]
        else:
            place[name] = data.draw(_anything)
        break
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as stderr:
        Path(folder, "summary.json").write_text(json.dumps(values), encoding="utf-8")
        with redirect_stdout(io.StringIO()):
            status = main(["--from", folder, "--contract", f"{folder}/none.md"])
    assert status in (0, 1, 2)
    assert stderr.getvalue().count("\n") == (status == 2)


def test_old_option_spelling_still_prints_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path))
    assert main(["--ledger"]) == 0
    assert "no runs stored" in capsys.readouterr().out
