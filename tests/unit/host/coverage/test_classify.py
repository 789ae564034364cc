# SPDX-License-Identifier: GPL-2.0-only
"""Classification of added lines, and stale exclusions."""

import json
from pathlib import Path

import pytest

from fixtures.host.coverage import exclusions, render
from fixtures.host.coverage.classify import classify_lines
from fixtures.host.coverage.gcov import LineCount
from fixtures.host.model.coverage_results import Exclusion, LineState
from fixtures.host.util.errors import UserError

ADDED = {"net/a.c": {3: "int x;", 4: "\tif (bad)", 5: "\t\treturn -ENOMEM;", 9: "\treturn 0;"}}
RAN = {
    "net/a.c": {
        4: LineCount(7, "make", (7, 0)),
        5: LineCount(0, "make", ()),
        9: LineCount(7, "make", ()),
    }
}
NO_MEMORY = Exclusion("net/a.c", "make", ("return -ENOMEM;",), "nothing fails")


def _states(*known: Exclusion) -> list[LineState]:
    return [line.state for line in classify_lines(ADDED, RAN, known).files["net/a.c"]]


def test_unreached_line_differs_from_line_without_code() -> None:
    assert _states() == [
        LineState.NO_CODE,
        LineState.REACHED,
        LineState.UNREACHED,
        LineState.REACHED,
    ]
    assert not classify_lines(ADDED, RAN, []).ok


def test_excluded_line_is_ok() -> None:
    known = classify_lines(ADDED, RAN, [NO_MEMORY])
    assert known.lines(LineState.EXCLUDED) == 1
    assert known.ok


@pytest.mark.parametrize(
    "reason",
    [
        Exclusion("net/b.c", "make", ("return -ENOMEM;",), "another file"),
        Exclusion("net/a.c", "other", ("return -ENOMEM;",), "another function"),
        Exclusion("net/a.c", "make", ("return -EINVAL;",), "another line"),
        Exclusion("net/a.c", "make", ("return 0;",), "a line that ran"),
    ],
    ids=lambda reason: reason.reason,
)
def test_exclusion_without_unreached_line_is_stale(reason: Exclusion) -> None:
    known = classify_lines(ADDED, RAN, [NO_MEMORY, reason])
    assert known.stale == [reason]
    assert not known.ok


def test_counts_are_written_to_reports(tmp_path: Path) -> None:
    known = classify_lines(ADDED, RAN, [])
    assert known.branches() == (1, 2)
    assert known.percent == pytest.approx(200 / 3)
    render.write(known, tmp_path)
    written = json.loads((tmp_path / "coverage.json").read_text())
    assert written["lines"] == {"reached": 2, "unreached": 1, "reasoned": 0, "no code": 1}
    assert written["files"]["net/a.c"][2]["text"] == "\t\treturn -ENOMEM;"
    assert "**not excluded**" in (tmp_path / "coverage.md").read_text()
    assert "1 of 2 branches" in (tmp_path / "coverage.html").read_text()


def _load(folder: Path, text: str) -> list[Exclusion]:
    path = folder / exclusions.FILE_NAME
    path.write_text(text)
    return exclusions.load_exclusions(path)


ENTRY = """\
[[unreached]]
file = "net/a.c"
function = "make"
lines = ["return -ENOMEM;"]
reason = "nothing fails"
"""


def test_exclusions_are_read(tmp_path: Path) -> None:
    assert _load(tmp_path, ENTRY) == [NO_MEMORY]
    assert exclusions.load_exclusions(tmp_path / "none.toml") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[unreached", "Expected"),
        ("[other]\n", "only"),
        (ENTRY.replace("reason", "why"), "entry 1: give file, function, lines, reason"),
        (ENTRY.replace('"make"', '""'), "entry 1: function has to be"),
        (ENTRY.replace('["return -ENOMEM;"]', "[1]"), "entry 1: lines has to be a list of text"),
        (ENTRY + ENTRY.replace('"nothing fails"', "2"), "entry 2: reason has to be"),
    ],
)
def test_malformed_exclusion_error_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _load(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert exclusions.FILE_NAME in str(caught.value)
