# SPDX-License-Identifier: GPL-2.0-only
"""KTAP, JUnit, HTML and Markdown: consistent counts, and no injection from guest output."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml

from fixtures.host.model.contract_clauses import parse
from fixtures.host.model.results import Run, TestResult, Verdict
from fixtures.host.model.run_verdict import counts
from fixtures.host.report import (
    html_report,
    junit_xml,
    ktap,
    markdown_summary,
    summary_json,
)
from fixtures.host.util.paths import cache_dir
from tests.unit.host.report import run_samples

CLAUSES = parse(run_samples.CONTRACT)

NASTY = (
    "]]> </script><script>alert(1)</script> & \"'\n"
    "KTAP version 1\n1..7\nok 1 forged\nnot ok 2 forged # SKIP\n# Subtest: forged\n"
    "  # Subtest: forged\nSubtest: forged\nreboot: System halted\nList of all partitions:\n"
    "Kernel panic - not syncing: VFS: no root\n"
    "\x1b[31mred\x1b[0m \x00 \ud800 \udcff \x85 \u2028 \ufffe ```` | <details> {{ 7 * 7 }}"
)

_verdicts = st.sampled_from(Verdict)
_text = st.one_of(
    st.text(st.characters(codec=None), max_size=30),
    st.sampled_from([NASTY, "- dash", "a # SKIP b", "#", "1..9", "ok 1 x", ""]),
)


@st.composite
def _runs(draw: st.DrawFn) -> Run:
    names = draw(st.lists(st.tuples(_text, _verdicts, _text), max_size=12))
    files = ["selftests/snoop/test_a.py", "selftests/races/b", "tests/test_a.py", "b"]
    tests = [
        run_samples.result(
            f"{draw(st.sampled_from(files))}::{name}{at}",
            verdict,
            message=message,
            stdout=message,
            splat=message,
            clauses=("MM-1",),
        )
        for at, (name, verdict, message) in enumerate(names)
    ]
    return summary_json.sanitize_run(run_samples.run(*tests))


class Page(HTMLParser):
    """Parse a report: its tags, links and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Store a tag."""
        self.tags.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str]:
        """Return all values of an attribute."""
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


def _ktap_counts(text: str) -> dict[str, int]:
    """Count the leaves as the KTAP document defines them: results without a plan before them."""
    found = {"passed": 0, "failed": 0, "skipped": 0}
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    deepest = 0
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.lstrip() == "KTAP version 1":
            deepest = depth
        elif match := re.match(r" *(ok|not ok) \d+ [^#]*(# SKIP)?", line):
            if depth == deepest:
                outcome = "skipped" if match[2] else "passed" if match[1] == "ok" else "failed"
                found[outcome] += 1
            else:
                deepest = depth
    return found


def _junit_counts(text: str) -> dict[str, int]:
    cases = [case for suite in JUnitXml.fromstring(text.encode()) for case in suite]
    failed = sum(case.is_failure or case.is_error for case in cases)
    skipped = sum(case.is_skipped for case in cases)
    return {"passed": len(cases) - failed - skipped, "failed": failed, "skipped": skipped}


def _html_counts(text: str) -> dict[str, int]:
    match = re.search(r'<tfoot><tr><th scope="row">all</th>(.*?)</tr>', text)
    assert match
    numbers = [int(n.replace(",", "")) for n in re.findall(r">([\d,]+)</td>", match[1])]
    return dict(zip(("passed", "failed", "skipped"), numbers, strict=True))


def _markdown_counts(text: str) -> dict[str, int]:
    match = re.search(r"^\| \*\*all\*\* \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert match
    return dict(zip(("passed", "failed", "skipped"), map(int, match.groups()), strict=True))


@settings(max_examples=40)
@given(_runs())
def test_all_formats_have_the_same_counts(run: Run) -> None:
    expected = counts(run.tests)
    assert _ktap_counts(ktap.render([run])) == expected
    assert _junit_counts(junit_xml.render([run])) == expected
    assert _html_counts(html_report.render([run], CLAUSES)) == expected
    assert _markdown_counts(markdown_summary.render([run], CLAUSES)) == expected
    ids = Page(html_report.render([run], CLAUSES)).values("data-verdict")
    assert sorted(ids) == sorted(test.verdict.value for test in run.tests)


@pytest.mark.parametrize("seed", [1, 2])
def test_counts_of_large_runs_agree_alone_and_merged(seed: int) -> None:
    one, two = (
        run_samples.large(seed),
        Run(run_samples.info(profile="debug"), run_samples.large(seed + 10).tests),
    )
    for runs in ([one], [one, two]):
        expected = counts(test for run in runs for test in run.tests)
        assert _ktap_counts(ktap.render(runs)) == expected
        assert _junit_counts(junit_xml.render(runs)) == expected
        assert _html_counts(html_report.render(runs, CLAUSES)) == expected
        assert _markdown_counts(markdown_summary.render(runs, CLAUSES)) == expected


def test_same_run_gives_the_same_bytes() -> None:
    one, other = ([run_samples.large(3)] for _ in range(2))
    for render in (ktap.render, junit_xml.render, summary_json.render):
        assert render(one) == render(other)
    for render_with in (html_report.render, markdown_summary.render):
        assert render_with(one, CLAUSES) == render_with(other, CLAUSES)


# --- KTAP


def test_ktap_is_nested_by_area_file_and_test() -> None:
    run = run_samples.run(
        run_samples.result("selftests/snoop/test_a.py::test_x", seconds=1.0),
        run_samples.result(
            "selftests/snoop/test_a.py::test_y", Verdict.SKIPPED, message="no act_ct"
        ),
        run_samples.result(
            "selftests/races/test_b.py::test_z", Verdict.PANIC, message="Oops\nin free"
        ),
    )
    assert ktap.render([run]) == (
        "KTAP version 1\n"
        "1..2\n"
        "  KTAP version 1\n"
        "  # Subtest: snoop\n"
        "  1..1\n"
        "    KTAP version 1\n"
        "    # Subtest: selftests/snoop/test_a.py\n"
        "    1..2\n"
        "    ok 1 test_x # 1.00 s\n"
        "    ok 2 test_y # SKIP no act_ct\n"
        "  ok 1 selftests/snoop/test_a.py\n"
        "ok 1 snoop\n"
        "  KTAP version 1\n"
        "  # Subtest: races\n"
        "  1..1\n"
        "    KTAP version 1\n"
        "    # Subtest: selftests/races/test_b.py\n"
        "    1..1\n"
        "    # Oops\n"
        "    # in free\n"
        "    not ok 1 test_z # panic\n"
        "  not ok 1 selftests/races/test_b.py\n"
        "not ok 2 races\n"
    )


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (Verdict.XFAIL, "ok 1 t # SKIP XFAIL because %23 of it"),
        (Verdict.HANG, "not ok 1 t # TIMEOUT after 2.5 s"),
        (Verdict.LOST, "not ok 1 t # ERROR lost: because %23 of it"),
        (Verdict.SPLAT, "not ok 1 t # splat"),
    ],
    ids=["xfail", "hang", "lost", "splat"],
)
def test_ktap_directive_of_verdict(verdict: Verdict, line: str) -> None:
    run = run_samples.run(
        run_samples.result("f.py::t", verdict, message="because # of it", seconds=2.5)
    )
    assert line in [text.strip() for text in ktap.render([run]).split("\n")]


_SOURCES = cache_dir() / "sources"
"""Kernel sources in the user's cache, which the tests themselves do not use."""


def _kunit() -> list[str] | None:
    """Return the command of the kernel's KTAP parser; None without a kernel tree."""
    named = os.environ.get("FLOWMAP_KERNEL_TREE")
    trees = [Path(named)] if named else sorted(_SOURCES.glob("*/"))
    scripts = [tree / "tools/testing/kunit/kunit.py" for tree in trees]
    found = [script for script in scripts if script.is_file()]
    return [sys.executable, str(found[-1]), "parse"] if found else None


def _kunit_counts(tmp_path: Path, runs: Sequence[Run]) -> dict[str, int]:
    command = _kunit()
    if command is None:
        pytest.skip("no kernel sources: none in the cache, none named by FLOWMAP_KERNEL_TREE")
    file = tmp_path / "results.ktap"
    file.write_text(ktap.render(runs), encoding="utf-8")
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    match = re.search(r"Testing complete\. Ran \d+ tests?: (.*)", done.stdout)
    assert match, done.stdout + done.stderr
    found = {"passed": 0, "failed": 0, "skipped": 0}
    found |= {word: int(n) for word, n in re.findall(r"(\w+): (\d+)", match[1])}
    return found


def test_kunit_parser_has_the_same_counts(tmp_path: Path) -> None:
    one, two = (
        run_samples.large(4),
        Run(run_samples.info(profile="debug"), run_samples.large(5).tests),
    )
    for runs in ([one], [one, two]):
        expected = counts(test for run in runs for test in run.tests)
        assert _kunit_counts(tmp_path, runs) == expected


def test_kunit_parser_is_not_confused_by_guest_output(tmp_path: Path) -> None:
    names = [
        "t",
        NASTY,
        "- t",
        "t # SKIP",
        "",
        "1..3",
        "selftests/snoop/a.py",
        "snoop",
        "# Subtest: x",
    ]
    tests = [
        run_samples.result(f"selftests/snoop/a.py::{name}", verdict, message=NASTY, splat=NASTY)
        for name in names
        for verdict in Verdict
    ]
    # Ids may be duplicates here: the test is about names.
    run = summary_json.sanitize_run(run_samples.run(*tests))
    assert _kunit_counts(tmp_path, [run]) == counts(run.tests)
    assert _junit_counts(junit_xml.render([run])) == counts(run.tests)


# --- JUnit


def test_junit_carries_verdict_clauses_and_environment() -> None:
    run = run_samples.run(
        run_samples.result(
            "selftests/lookup/test_a.py::test_x[v4]",
            Verdict.SPLAT,
            clauses=("FM-4", "FM-5"),
            message="E   it said ]]>",
            splat=run_samples.SPLAT,
            artefacts=("artefacts/x/console.log",),
            replay="tox -e vm -- selftests/lookup/test_a.py::test_x[v4]",
            seed=7,
        )
    )
    root = ET.fromstring(junit_xml.render([run]).encode())
    suite = root[0]
    assert suite.get("name") == "lookup"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    case = suite.find("testcase")
    assert case is not None
    assert case.get("classname") == "selftests.lookup.test_a"
    assert case.get("name") == "test_x[v4]"
    pairs = [(item.get("name"), item.get("value")) for item in case.iter("property")]
    assert ("verdict", "splat") in pairs
    assert [value for name, value in pairs if name == "clause"] == ["FM-4", "FM-5"]
    assert ("seed", "7") in pairs
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("type") == "splat"
    assert failure.get("message") == "it said ]]>"
    assert "flowmap_lookup" in (failure.text or "")
    environment = {item.get("name"): item.get("value") for item in suite.iter("property")}
    assert environment["accel"] == "tcg"


# --- HTML


def _page(*tests: TestResult) -> str:
    return html_report.render([summary_json.sanitize_run(run_samples.run(*tests))], CLAUSES)


def test_html_has_no_external_resources() -> None:
    text = html_report.render([run_samples.large(6)], CLAUSES)
    page = Page(text)
    assert not page.values("src")
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object")]
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(text) < 500_000


def test_html_escapes_guest_output() -> None:
    test = run_samples.result(
        f"selftests/snoop/a.py::{NASTY}",
        Verdict.PANIC,
        message=NASTY,
        splat=NASTY,
        stdout=NASTY,
        console=NASTY,
        clauses=('"><b>',),
        artefacts=("a/<b>\"'.pcap", "javascript:alert(1)"),
        replay=NASTY,
    )
    text = _page(test)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert(1)</script>" not in text
    assert "{{" in text  # shown verbatim, not evaluated
    assert "49" not in re.findall(r"\{\{ (\S+) \}\}", text)
    assert not [value for value in page.values("href") if value.startswith("javascript:")]
    text.encode()


def test_html_links_have_targets() -> None:
    page = Page(
        html_report.render(
            [run_samples.large(7), run_samples.run(run_samples.result(), profile="debug")], CLAUSES
        )
    )
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {href[1:] for href in page.values("href") if href.startswith("#")}
    plain = {target for target in targets if not target.startswith("clause=")}
    assert plain <= set(ids)
    assert "clause=MM-1" in targets


def test_html_has_verdict_first_and_the_repeat_command() -> None:
    text = _page(run_samples.result())
    body = text[text.index("<body>") :]
    assert (
        body.index("1 test passed")
        < body.index("<h2>Summary")
        < body.index("Kernel and environment")
    )
    for words in ("7.3.4-suite", "no guest reached user space", "ab" * 32, "gcc 12.2.0"):
        assert words in body
    assert "tox -e vm -- -n 2" in body
    assert "Failures" not in body


def test_html_marks_uncovered_clauses() -> None:
    text = _page(run_samples.result(clauses=("MM-1", "ZZ-1")))
    assert "no test" in text
    assert "3 had no test" in text
    assert "Not in the contract" in text
    assert "<code>bpf_map_register_ops(type, ops)</code> is &lt;exported&gt;" in text
    assert "<em>GPL</em>" in text


def test_html_has_sentences_below_their_clause() -> None:
    contract = parse(run_samples.NUMBERED_CONTRACT.replace("A second claim", "A long claim" * 40))
    run = run_samples.run(run_samples.result(clauses=("FM-1.1", "FM-3")))
    text = html_report.render([run], contract)
    names = re.findall(r'<th scope="row"><a href="#clause=[^"]*">([^<]*)</a>', text)
    assert names == ["FM-1", "FM-1.1", "FM-1.2", "FM-2", "FM-2.1", "FM-2.2", "FM-3"]
    assert "</a> Creation</th>" in text
    assert "1 of 2 hold" in text
    long = "A long claim" * 40 + "."
    assert f'title="{long}"' in text  # the whole text
    assert f">{long}" not in text
    for words in ("1 passed", "no test", "open", "proved by other means"):
        assert f'">{words}</td>' in text


def test_html_without_runs_or_tests_is_a_page() -> None:
    for runs in ([], [run_samples.run(interrupted=True)]):
        assert "Failed." in re.sub("<[^>]*>", "", html_report.render(runs, ()))


# --- Markdown


def test_markdown_is_bounded_and_balanced() -> None:
    tests = [
        run_samples.result(f"a.py::{at}", Verdict.FAILED, message=NASTY * 200, replay="x `y` z")
        for at in range(60)
    ]
    text = markdown_summary.render([summary_json.sanitize_run(run_samples.run(*tests))], CLAUSES)
    assert len(text.encode()) < 900_000
    assert "40 further failures" in text
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert outside.count("<details>") == outside.count("</details>")
    assert "<script>" not in outside.replace("\\<script\\>", "")


def test_markdown_names_failed_sentences_with_their_text() -> None:
    tests = (
        run_samples.result("a.py::1", clauses=("FM-1.2", "FM-3")),
        run_samples.result("a.py::2", Verdict.FAILED, clauses=("FM-1.1",)),
    )
    contract = parse(run_samples.NUMBERED_CONTRACT)
    text = markdown_summary.render([run_samples.run(*tests)], contract)
    assert "2 of 5 sentences of the contract hold in the tests that ran." in text
    assert "Failed: FM-1.1." in text
    assert "- FM-1.1: A first claim over two lines." in text
