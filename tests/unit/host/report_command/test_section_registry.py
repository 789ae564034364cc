# SPDX-License-Identifier: GPL-2.0-only
"""Sections of other commands in the report: content, series hash, and malformed files."""

import io
import json
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.host.bench.report_section import plot_url
from fixtures.host.model.mutation_results import MutantStatus, merge_results
from fixtures.host.mutation import report_section as mutation_section
from fixtures.host.mutation.build_mutants_json import make_results
from fixtures.host.report import cover_letter, extra_sections
from fixtures.host.report.extra_sections import Section, series_note
from fixtures.host.report.report_writer import write_all
from fixtures.host.report_command.cli import main
from fixtures.host.report_command.section_registry import SECTIONS
from fixtures.host.util.errors import UserError
from tests.unit.host.report import run_samples, section_samples
from tests.unit.host.report.section_samples import benchmarks, coverage, filled, mutation

NAMES = ("mutants.json", "coverage.json", "bench.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run's report."""
    write_all(
        [run_samples.run(run_samples.result(clauses=("MM-1",)))],
        tmp_path / "run",
        tmp_path / "none.md",
    )
    return tmp_path / "run"


def report(*sources: Path, to: Path) -> str:
    """Render a report from folders and return the text of report.html."""
    argv = ["--from", *map(str, sources), "--to", str(to), "--contract", str(to / "none.md")]
    assert main(argv) == 0
    return (to / "report.html").read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """Return the HTML of one section of a page."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    return found[0] if found else ""


def load(*folders: Path) -> tuple[Section, ...]:
    """Load all registered sections from folders."""
    return extra_sections.load(SECTIONS, folders)


def test_registered_sections_write_the_known_files() -> None:
    assert tuple(each.file_name for each in SECTIONS) == NAMES


def test_results_in_any_folder_make_a_section(run: Path, tmp_path: Path) -> None:
    folders = [
        section_samples.write(filled(mutation(), None, None), tmp_path / "mutants"),
        section_samples.write(filled(None, coverage(), None), tmp_path / "coverage"),
        section_samples.write(filled(None, None, benchmarks()), tmp_path / "bench"),
    ]
    page = report(run, *folders, to=tmp_path / "all")
    assert all(section(page, name) for name in ("bugs", "coverage", "cost"))
    assert 'id="absent"' not in page
    again = report(tmp_path / "all", to=tmp_path / "again")
    assert again == page
    for path in (tmp_path / "all").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_missing_sections_are_listed_with_their_command(run: Path, tmp_path: Path) -> None:
    page = report(run, to=tmp_path / "all")
    for name, command in (("bugs", "mutants"), ("coverage", "coverage"), ("cost", "bench")):
        assert not section(page, name)
        assert f"<code>tox -e {command}</code>" in page[page.index('id="absent"') :]
    only = section_samples.write(filled(None, None, benchmarks()), tmp_path / "bench")
    assert "tox -e bench" not in report(run, only, to=tmp_path / "some").partition('"absent"')[2]


def test_mutation_section_lists_survivors_first_and_all_clauses(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(filled(mutation(), None, None), tmp_path / "mutants")
    text = section(report(run, found, to=tmp_path / "all"), "bugs")
    names = re.findall(r"<code>([a-z-]+)</code>: ", text)
    assert names == ["missed", "excused", "also-caught", "caught"]
    assert re.findall(r'<details class="bug" open>', text) == ['<details class="bug" open>'] * 2
    assert "missed &lt;is&gt; wrong" in text
    assert "Both orders are right." in text
    assert re.findall(r"(\d of \d)</td>", text) == ["2 of 2", "2 of 4"]
    assert re.findall(r'bar rest" style="width: ([\d.]+)rem', text) == ["0.00", "6.00"]
    assert "2 of 4 mutants killed; 1 survived; 1 equivalent, with a reason given" in text


def test_coverage_section_annotates_lines_folded_by_file(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(filled(None, coverage(), None), tmp_path / "coverage")
    text = section(report(run, found, to=tmp_path / "all"), "coverage")
    assert "2 of 4 added lines ran (50.0 %), 2 of 3 branches were taken; 1 lines excluded" in text
    assert '<details class="file"><summary><code>net/a.c</code>: 1 of 3' in text.replace(
        ">\n<s", "><s"
    )
    assert " open" not in text
    assert "if (bad &amp;&amp; a &lt; b)" in text
    assert "never &lt;called&gt;" in text
    assert "no longer true" in text
    rows = re.findall(r'<tr class="([a-z-]+)">', text)
    assert rows == ["no-code", "reached", "unreached", "reasoned", "reached"]


def test_bench_section_has_goals_results_and_plots(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(filled(None, None, benchmarks()), tmp_path / "bench")
    text = section(report(run, found, to=tmp_path / "all"), "cost")
    assert "1 of 2 goals are met" in text
    cells = re.findall(r"<td[^>]*>([^<]+)</td>", text)
    assert cells[:8] == [
        "1,002 / 500",
        "2.004",
        "≤ 0.7",
        "no",
        "1,002 / 1,200",
        "0.835",
        "≤ 1",
        "yes",
    ]
    assert "1,002 (1,001–1,003)" in text
    assert plot_url(section_samples.PLOT) in text


def test_each_section_is_a_line_in_cover_letter_and_summary(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(section_samples.everything("cd" * 32), tmp_path / "found")
    report(run, found, to=tmp_path / "all")
    mail = (tmp_path / "all/cover-letter.txt").read_text()
    assert max(map(len, mail.splitlines())) <= cover_letter.WIDTH
    assert "\nMutation testing: 2 of 4 mutants killed" in mail
    assert "\nCoverage: 2 of 4 added lines" in mail
    assert "\nBenchmarks: 1 of 2 goals are met. Different series: " in mail
    page = (tmp_path / "all/summary.md").read_text()
    assert page.count("Different series: cdcdcdcdcdcd, the runs are of abababababab.") == 3


def test_without_results_cover_letter_and_summary_do_not_mention_them(run: Path) -> None:
    for name in ("cover-letter.txt", "summary.md"):
        text = (run / name).read_text()
        assert not re.search("mutation|coverage|benchmarks", text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("series", "note"),
    [
        ("ab" * 32, ""),
        ("", "Series hash not recorded."),
        ("cd" * 32, "Different series: cdcdcdcdcdcd, the runs are of abababababab."),
    ],
    ids=["same", "not-recorded", "different"],
)
def test_different_series_is_marked(series: str, note: str, run: Path, tmp_path: Path) -> None:
    found = section_samples.write(section_samples.everything(series), tmp_path / "found")
    page = report(run, found, to=tmp_path / "all")
    for name in ("bugs", "coverage", "cost"):
        assert re.findall(r'<p class="s-failed">(.*)</p>', section(page, name)) == [note] * bool(
            note
        )


def test_series_is_compared_with_all_runs() -> None:
    one, plain = run_samples.run(), run_samples.run(kernel={"series": None}, profile="unpatched")
    other = run_samples.run(kernel={"series": {"sha256": "cd" * 32}})
    assert series_note("ab" * 32, [one, plain]) == ""
    assert series_note("ab" * 32, [plain]).endswith("abababababab, the runs are of none.")
    assert series_note("ab" * 32, [one, other]).endswith("some runs are of cdcdcdcdcdcd.")


def test_mutants_of_several_folders_are_merged(run: Path, tmp_path: Path) -> None:
    first = make_results(
        [
            section_samples.mutant_with_result("x", MutantStatus.KILLED),
            section_samples.mutant_with_result("y", MutantStatus.KILLED),
        ],
        section_samples.SERIES,
    )
    second = make_results(
        [
            section_samples.mutant_with_result("x", MutantStatus.SURVIVED),
            section_samples.mutant_with_result("z", MutantStatus.KILLED),
        ],
        section_samples.SERIES,
    )
    fates = [(bug.name, bug.fate.value) for bug in merge_results([first, second]).mutants]
    assert fates == [("x", "survived"), ("y", "killed"), ("z", "killed")]
    assert merge_results([first, second]) == merge_results([second, first])
    assert "not tested" not in merge_results([first, second]).headline
    assert merge_results([first, replace(second, known=9)]).headline.endswith("; 6 not tested")
    folders = [
        section_samples.write(
            filled(mutation_section.content_of(each), None, None), tmp_path / str(at)
        )
        for at, each in enumerate([first, second])
    ]
    assert "2 of 3 mutants killed" in report(run, *folders, to=tmp_path / "all")


@pytest.mark.parametrize(("known", "ok"), [(2, True), (3, False)], ids=["all", "one-missing"])
def test_mutation_section_is_ok_if_all_mutants_were_tested(known: int, ok: bool) -> None:
    tested = [
        section_samples.mutant_with_result("x", MutantStatus.KILLED),
        section_samples.mutant_with_result("y", MutantStatus.SURVIVED, "Equal."),
    ]
    found = make_results(tested, section_samples.SERIES, known)
    assert mutation_section.content_of(found).ok is ok


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (filled(mutation("cd" * 32), coverage(), benchmarks()), "mutants.json: mutants of"),
        (filled(mutation(), coverage("cd" * 32), benchmarks()), "coverage.json: differs from"),
        (filled(mutation(), coverage(), benchmarks("cd" * 32)), "bench.json: differs from"),
    ],
    ids=["mutation", "coverage", "bench"],
)
def test_contradicting_files_are_refused(
    other: tuple[Section, ...], message: str, tmp_path: Path
) -> None:
    one = section_samples.write(section_samples.everything(), tmp_path / "one")
    same = section_samples.write(section_samples.everything(), tmp_path / "same")
    assert load(one, same) == section_samples.everything()
    different = section_samples.write(other, tmp_path / "other")
    with pytest.raises(UserError, match=message):
        load(one, different)


def test_results_without_a_run_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = section_samples.write(section_samples.everything(), tmp_path / "found")
    assert main(["--from", str(found)]) == 2
    assert "name the folder of a run with --from, too" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema_version": 9, "schema": 9}', "[" * 99999],
    ids=["empty", "list", "no-fields", "later-version", "deep"],
)
def test_malformed_file_is_refused_in_one_line(
    name: str, text: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).write_text(text)
    assert main(["--from", str(run)]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert "run it again" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("mutants.json", ("bugs", 0, "ran"), "7", "ran: str is not"),
        (
            "mutants.json",
            ("bugs", 0, "fate"),
            "fled",
            f"'fled' is not a valid {MutantStatus.__name__}",
        ),
        ("coverage.json", ("files", "net/a.c", 0, "count"), None, "count: None is not"),
        ("coverage.json", ("stale", 0, "lines"), [1], "lines: "),
        ("bench.json", ("figures", 0, "samples"), [], "no samples"),
        ("bench.json", ("figures", 0, "name"), "forward", "no field 'octets'"),
        ("bench.json", ("kernels",), {"base": 7}, "kernels: "),
    ],
    ids=["ran", "fate", "count", "lines", "samples", "name", "kernels"],
)
def test_invalid_value_is_named(
    name: str, place: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    folder = section_samples.write(section_samples.everything(), tmp_path)
    values = json.loads((folder / name).read_text())
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / name).write_text(json.dumps(values))
    with pytest.raises(UserError, match=re.escape(f"{folder / name}: not what")) as caught:
        load(folder)
    assert message in str(caught.value)


_ANYTHING = st.sampled_from([None, True, -1, 1e308, "", "\0\udc80<script>", [None], {"a": [1]}])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(NAMES))
def test_edited_file_is_read_or_refused_in_one_line(data: st.DataObject, name: str) -> None:
    """Any value at any place: no traceback, no script in the page, and status 0 or 2."""
    files = {
        file: content
        for each in section_samples.everything()
        if each.content
        for file, content in each.content.files.items()
    }
    values = json.loads(files[name])
    place: Any = values
    while True:
        key = data.draw(st.sampled_from([*place] if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        if isinstance(place, dict) and data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(_ANYTHING)
        break
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as stderr:
        write_all([run_samples.run(run_samples.result())], Path(folder), Path(folder, "none.md"))
        Path(folder, name).write_text(json.dumps(values), encoding="utf-8")
        with redirect_stdout(io.StringIO()):
            status = main(["--from", folder, "--contract", f"{folder}/none.md"])
        page = Path(folder, "report.html").read_text(encoding="utf-8")
    assert status in (0, 2)
    assert stderr.getvalue().count("\n") == (status == 2)
    assert page.count("<script>") == 1
