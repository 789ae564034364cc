# SPDX-License-Identifier: GPL-2.0-only
"""Writing reports into a folder, making them again, and merging them."""

import io
import json
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fixtures.host.model.results import Run, Verdict
from fixtures.host.report import summary_json
from fixtures.host.report.aggregate import columns, merged
from fixtures.host.report.cli import main, merge
from fixtures.host.report.report_writer import write_all
from fixtures.host.report.terminal_summary import show, verdict_line
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


def test_every_report_is_written_and_nothing_else(tmp_path: Path) -> None:
    judgement = write_all(
        [run_samples.large(1)], tmp_path / "new" / "report", run_samples.contract(tmp_path)
    )
    assert not judgement.ok
    assert sorted(path.name for path in (tmp_path / "new" / "report").iterdir()) == FILES


def test_reports_can_be_made_again_byte_for_byte(tmp_path: Path) -> None:
    contract = run_samples.contract(tmp_path)
    write_all([run_samples.large(1)], tmp_path / "a", contract)
    args = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--contract", str(contract)]
    assert main(args) == 1
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_missing_contract_leaves_the_clauses_of_the_tests(tmp_path: Path) -> None:
    write_all(
        [run_samples.run(run_samples.result(clauses=("MM-1",)))], tmp_path, tmp_path / "none.md"
    )
    assert "Not in the contract" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="file/report"):
        write_all([run_samples.run(run_samples.result())], tmp_path / "file" / "report")


def test_merging_moves_artefacts_and_drops_doubles(tmp_path: Path) -> None:
    contract = run_samples.contract(tmp_path)
    kept = run_samples.result(artefacts=("artefacts/x/a.pcap",))
    write_all([run_samples.run(kept, profile="debug")], tmp_path / "one" / "report", contract)
    write_all([run_samples.run(kept)], tmp_path / "two", contract)
    sources = [tmp_path / "one" / "report", tmp_path / "two", tmp_path / "two"]
    runs = merge(sources, tmp_path / "all")
    assert [run.info.profile for run in runs] == ["base", "debug"]
    assert [run.tests[0].artefacts[0] for run in runs] == [
        "../two/artefacts/x/a.pcap",
        "../one/report/artefacts/x/a.pcap",
    ]
    assert merge(list(reversed(sources)), tmp_path / "all") == runs


def test_merged_reports_can_be_merged_again(tmp_path: Path) -> None:
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


def test_the_command_refuses_bad_input_in_one_line(
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
def test_a_summary_that_was_edited_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    """Anything at any place of it: never a traceback, and nothing else than three statuses."""
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
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as said:
        Path(folder, "summary.json").write_text(json.dumps(values), encoding="utf-8")
        with redirect_stdout(io.StringIO()):
            status = main(["--from", folder, "--contract", f"{folder}/none.md"])
    assert status in (0, 1, 2)
    assert said.getvalue().count("\n") == (status == 2)


def test_a_copy_of_a_run_is_that_run(tmp_path: Path) -> None:
    run = run_samples.run(run_samples.result(artefacts=("artefacts/x/a.pcap",)))
    for name in ("here", "there"):
        write_all([run], tmp_path / name)
    (found,) = merge([tmp_path / "here", tmp_path / "there"], tmp_path / "all")
    assert found.tests[0].artefacts == ("../here/artefacts/x/a.pcap",)


def test_the_worst_result_of_a_test_comes_first() -> None:
    verdicts = [Verdict.PASSED, Verdict.SKIPPED, Verdict.INFRA, Verdict.PANIC, Verdict.PASSED]
    runs = [
        run_samples.run(run_samples.result(verdict=one), started=f"{at}")
        for at, one in enumerate(verdicts)
    ]
    (test,) = merged(runs)
    assert [found.verdict for _, found in test.results] == [
        Verdict.PANIC,
        Verdict.INFRA,
        Verdict.SKIPPED,
        Verdict.PASSED,
        Verdict.PASSED,
    ]
    assert test.verdicts == {"panic": 1, "infra": 1, "skipped": 1, "passed": 2}


def test_runs_are_told_by_profile_kernel_and_series() -> None:
    def kernel(series: str) -> dict[str, Any]:
        return {"series": {"sha256": series}}

    def titles(*runs: Run) -> list[tuple[str, int]]:
        return [(column.title, len(column.runs)) for column in columns(runs)]

    base, debug = run_samples.run(kernel=kernel("ab" * 32)), run_samples.run(profile="debug")
    newer = run_samples.run(kernel_release="7.4.0")
    other = run_samples.run(kernel=kernel("cd" * 32), started="later")
    assert titles(base, debug, base) == [("base", 2), ("debug", 1)]
    assert titles(base, newer) == [("base, 7.3.4-suite", 1), ("base, 7.4.0", 1)]
    assert titles(base, other) == [
        ("base, 7.3.4-suite, series abababababab", 1),
        ("base, 7.3.4-suite, series cdcdcdcdcdcd", 1),
    ]


def test_a_merged_report_names_every_source(tmp_path: Path) -> None:
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


def test_the_verdict_takes_one_line() -> None:
    run = run_samples.run(run_samples.result(message="irrelevant"))
    assert verdict_line([run], Path("build/report/report.html")) == (
        "PASSED: 1 test passed on 7.3.4-suite (base), none failed."
        " [tcg, 1 min 32 s] build/report/report.html"
    )


def test_the_terminal_shows_failures_and_then_the_verdict() -> None:
    tests = [
        run_samples.result(f"a.py::test_{at:02}[x]", Verdict.PANIC, message="E   [bold]not markup")
        for at in range(25)
    ]
    out = io.StringIO()
    show([run_samples.run(*tests)], Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    assert len(lines) == 22
    assert lines[0] == " panic a.py::test_00[x]: [bold]not markup"
    assert lines[20].strip() == "and 5 more"
    assert lines[21].startswith("FAILED: 25 failed tests (25 panic) out of 25")
