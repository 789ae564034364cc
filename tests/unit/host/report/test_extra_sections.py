# SPDX-License-Identifier: GPL-2.0-only
"""Seeded bugs, coverage and cost in a report: what is shown, of which series, and bad files."""

import io
import json
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.host.model.mutation_results import Fate
from fixtures.host.mutation.json_format import seeded, union
from fixtures.host.report import cover_letter, extra_sections
from fixtures.host.report.cli import main
from fixtures.host.report.extra_sections import Besides
from fixtures.host.report.report_writer import write_all
from fixtures.host.util.errors import UserError
from tests.unit.host.report import run_samples, section_samples


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
    """Make a report of folders and return its page."""
    argv = ["--from", *map(str, sources), "--to", str(to), "--contract", str(to / "none.md")]
    assert main(argv) == 0
    return (to / "report.html").read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """The text of one section of a page."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    return found[0] if found else ""


def test_each_kind_makes_a_section_wherever_it_lies(run: Path, tmp_path: Path) -> None:
    every = section_samples.everything()
    folders = [
        section_samples.write(Besides(seeded=every.seeded), tmp_path / "mutants"),
        section_samples.write(Besides(coverage=every.coverage), tmp_path / "coverage"),
        section_samples.write(Besides(cost=every.cost, plots=every.plots), tmp_path / "bench"),
    ]
    page = report(run, *folders, to=tmp_path / "all")
    assert all(section(page, name) for name in ("bugs", "coverage", "cost"))
    assert 'id="absent"' not in page
    again = report(tmp_path / "all", to=tmp_path / "again")
    assert again == page
    for path in (tmp_path / "all").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_what_is_not_there_is_named_with_its_command(run: Path, tmp_path: Path) -> None:
    page = report(run, to=tmp_path / "all")
    for name, command in (("bugs", "mutants"), ("coverage", "coverage"), ("cost", "bench")):
        assert not section(page, name)
        assert f"<code>tox -e {command}</code>" in page[page.index('id="absent"') :]
    only = section_samples.write(Besides(cost=section_samples.some_cost()), tmp_path / "bench")
    assert "tox -e bench" not in report(run, only, to=tmp_path / "some").partition('"absent"')[2]


def test_survivors_come_first_and_the_picture_has_every_clause(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(Besides(seeded=section_samples.some_bugs()), tmp_path / "mutants")
    text = section(report(run, found, to=tmp_path / "all"), "bugs")
    names = re.findall(r"<code>([a-z-]+)</code>: ", text)
    assert names == ["missed", "excused", "also-caught", "caught"]
    assert re.findall(r'<details class="bug" open>', text) == ['<details class="bug" open>'] * 2
    assert "missed &lt;is&gt; wrong" in text
    assert "Both orders are right." in text
    assert re.findall(r"(\d of \d)</td>", text) == ["2 of 2", "2 of 4"]
    assert re.findall(r'bar rest" style="width: ([\d.]+)rem', text) == ["0.00", "6.00"]
    told = "2 of 4 wrong versions of the series made a test fail; 1 went unnoticed; 1 cannot be"
    assert told in text


def test_coverage_is_the_annotated_lines_folded_by_file(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(
        Besides(coverage=section_samples.some_lines()), tmp_path / "coverage"
    )
    text = section(report(run, found, to=tmp_path / "all"), "coverage")
    assert "2 of 4 added lines ran (50.0 %), 2 of 3 branches were taken; 1 lines cannot" in text
    assert '<details class="file"><summary><code>net/a.c</code>: 1 of 3' in text.replace(
        ">\n<s", "><s"
    )
    assert " open" not in text
    assert "if (bad &amp;&amp; a &lt; b)" in text
    assert "never &lt;called&gt;" in text
    assert "no longer true" in text
    rows = re.findall(r'<tr class="([a-z-]+)">', text)
    assert rows == ["no-code", "reached", "unreached", "reasoned", "reached"]


def test_cost_has_goals_beside_results_and_the_plots(run: Path, tmp_path: Path) -> None:
    every = section_samples.everything()
    found = section_samples.write(Besides(cost=every.cost, plots=every.plots), tmp_path / "bench")
    text = section(report(run, found, to=tmp_path / "all"), "cost")
    assert "1 of 2 goals are met" in text
    cells = re.findall(r"<td[^>]*>([^<]+)</td>", text)
    assert cells[:8] == [
        "1,002 / 500",
        "2.004",
        "≤ 1",
        "no",
        "1,002 / 900",
        "1.113",
        "≤ 1.5",
        "yes",
    ]
    assert "1,002 (1,001–1,003)" in text
    assert extra_sections.plot_url(section_samples.PLOT) in text


def test_each_is_a_line_in_mail_and_job_page(run: Path, tmp_path: Path) -> None:
    found = section_samples.write(section_samples.everything("cd" * 32), tmp_path / "found")
    report(run, found, to=tmp_path / "all")
    mail = (tmp_path / "all/cover-letter.txt").read_text()
    assert max(map(len, mail.splitlines())) <= cover_letter.WIDTH
    assert "\nSeeded bugs: 2 of 4 wrong versions" in mail
    assert "\nCoverage: 2 of 4 added lines" in mail
    assert "\nCost: 1 of 2 goals are met. Of another series than the runs:" in mail
    page = (tmp_path / "all/summary.md").read_text()
    assert page.count("Of another series than the runs: cdcdcdcdcdcd, not abababababab.") == 3


def test_nothing_is_said_where_there_is_nothing(run: Path) -> None:
    for name in ("cover-letter.txt", "summary.md"):
        text = (run / name).read_text()
        assert not re.search("seeded|coverage|cost", text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("series", "told"),
    [
        ("ab" * 32, ""),
        ("", "Of which series this is was not written down."),
        ("cd" * 32, "Of another series than the runs: cdcdcdcdcdcd, not abababababab."),
    ],
)
def test_another_series_is_told(series: str, told: str, run: Path, tmp_path: Path) -> None:
    found = section_samples.write(section_samples.everything(series), tmp_path / "found")
    page = report(run, found, to=tmp_path / "all")
    for name in ("bugs", "coverage", "cost"):
        assert re.findall(r'<p class="s-failed">(.*)</p>', section(page, name)) == [told] * bool(
            told
        )


def test_series_are_compared_with_those_of_all_runs() -> None:
    one, plain = run_samples.run(), run_samples.run(kernel={"series": None}, profile="unpatched")
    other = run_samples.run(kernel={"series": {"sha256": "cd" * 32}})
    assert extra_sections.note("ab" * 32, [one, plain]) == ""
    assert extra_sections.note("ab" * 32, [plain]).endswith("abababababab, not any.")
    assert extra_sections.note("ab" * 32, [one, other]).endswith("there are runs of cdcdcdcdcdcd.")


def test_bugs_of_several_folders_are_put_together(run: Path, tmp_path: Path) -> None:
    first = seeded(
        [section_samples.tried("x", Fate.KILLED), section_samples.tried("y", Fate.KILLED)],
        section_samples.SERIES,
    )
    second = seeded(
        [section_samples.tried("x", Fate.SURVIVED), section_samples.tried("z", Fate.KILLED)],
        section_samples.SERIES,
    )
    fates = [(bug.name, bug.fate.value) for bug in union([first, second]).bugs]
    assert fates == [("x", "survived"), ("y", "killed"), ("z", "killed")]
    assert union([first, second]) == union([second, first])
    assert "not tried" not in union([first, second]).headline
    assert union([first, replace(second, known=9)]).headline.endswith("; 6 more were not tried")
    folders = [
        section_samples.write(Besides(seeded=each), tmp_path / str(at))
        for at, each in enumerate([first, second])
    ]
    assert "2 of 3 wrong versions" in report(run, *folders, to=tmp_path / "all")


@pytest.mark.parametrize(("known", "good"), [(2, True), (3, False)])
def test_all_is_well_when_all_were_tried(known: int, good: bool) -> None:
    tried = [
        section_samples.tried("x", Fate.KILLED),
        section_samples.tried("y", Fate.SURVIVED, "Equal."),
    ]
    found = seeded(tried, section_samples.SERIES, known)
    assert extra_sections.subjects(Besides(seeded=found), [run_samples.run()])[0].good is good


Change = Callable[[Besides], Besides]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda b: replace(b, seeded=section_samples.some_bugs("cd" * 32)),
            "mutants.json: seeded bugs of",
        ),
        (
            lambda b: replace(b, coverage=section_samples.some_lines("cd" * 32)),
            "coverage.json: differs from",
        ),
        (
            lambda b: replace(b, cost=section_samples.some_cost("cd" * 32)),
            "bench.json: differs from",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(change: Change, told: str, tmp_path: Path) -> None:
    one = section_samples.write(section_samples.everything(), tmp_path / "one")
    same = section_samples.write(section_samples.everything(), tmp_path / "same")
    assert extra_sections.find([one, same]) == section_samples.everything()
    other = section_samples.write(change(section_samples.everything()), tmp_path / "other")
    with pytest.raises(UserError, match=told):
        extra_sections.find([one, other])


def test_without_a_run_there_is_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = section_samples.write(section_samples.everything(), tmp_path / "found")
    assert main(["--from", str(found)]) == 2
    assert "name the folder of a run with --from, too" in capsys.readouterr().err


@pytest.mark.parametrize("name", extra_sections.NAMES)
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 9, "schema": 9}', "[" * 99999]
)
def test_what_is_no_such_file_is_one_line(
    name: str, text: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).write_text(text)
    assert main(["--from", str(run)]) == 2
    told = capsys.readouterr().err
    assert name in told
    assert "run it again" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "place", "value", "told"),
    [
        ("mutants.json", ("bugs", 0, "ran"), "7", "ran: str is not"),
        ("mutants.json", ("bugs", 0, "fate"), "fled", "'fled' is not a valid Fate"),
        ("coverage.json", ("files", "net/a.c", 0, "count"), None, "count: None is not"),
        ("coverage.json", ("stale", 0, "lines"), [1], "lines: "),
        ("bench.json", ("figures", 0, "samples"), [], "no samples"),
        ("bench.json", ("figures", 0, "name"), "forward", "no field 'octets'"),
        ("bench.json", ("kernels",), {"base": 7}, "kernels: "),
    ],
)
def test_what_is_wrong_is_named(
    name: str, place: tuple[Any, ...], value: Any, told: str, tmp_path: Path
) -> None:
    folder = section_samples.write(section_samples.everything(), tmp_path)
    values = json.loads((folder / name).read_text())
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / name).write_text(json.dumps(values))
    with pytest.raises(UserError, match=re.escape(f"{folder / name}: not what")) as caught:
        extra_sections.find([folder])
    assert told in str(caught.value)


_ANYTHING = st.sampled_from([None, True, -1, 1e308, "", "\0\udc80<script>", [None], {"a": [1]}])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(extra_sections.NAMES))
def test_a_file_that_was_edited_is_read_or_refused_in_one_line(
    data: st.DataObject, name: str
) -> None:
    """Anything at any place of it: never a traceback, nothing that runs, and two statuses."""
    values = json.loads(section_samples.everything().files()[name])
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
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as said:
        write_all([run_samples.run(run_samples.result())], Path(folder), Path(folder, "none.md"))
        Path(folder, name).write_text(json.dumps(values), encoding="utf-8")
        with redirect_stdout(io.StringIO()):
            status = main(["--from", folder, "--contract", f"{folder}/none.md"])
        page = Path(folder, "report.html").read_text(encoding="utf-8")
    assert status in (0, 2)
    assert said.getvalue().count("\n") == (status == 2)
    assert page.count("<script>") == 1
