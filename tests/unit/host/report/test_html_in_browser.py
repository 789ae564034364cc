# SPDX-License-Identifier: GPL-2.0-only
"""report.html in a browser: search, filters, links, printing and a narrow window."""

import html as markup
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.model.contract_clauses import parse
from fixtures.host.model.results import Run, Verdict
from fixtures.host.report import html_report, run_history, summary_json
from fixtures.host.report.extra_sections import Section
from fixtures.host.report.flake_stats import histories
from tests.unit.host.report import run_samples, section_samples

PHONE = 360
"""Width of a small phone's viewport in CSS pixels."""

Ask = Callable[[str], Any]

TESTS = (
    run_samples.result("selftests/lookup/test_a.py::test_found[ipv4]", clauses=("MM-1",)),
    run_samples.result("selftests/lookup/test_a.py::test_found[ipv6]", clauses=("MM-1", "SN-2.1")),
    run_samples.result(
        "selftests/snoop/test_b.py::test_splat",
        Verdict.SPLAT,
        clauses=("SN-2",),
        message="E   the needle in " + "a_very_long_word" * 20,
        splat=run_samples.SPLAT,
        stdout="said",
        artefacts=("artefacts/x/dmesg.txt",),
    ),
    run_samples.result(
        "selftests/races/test_c.py::test_skipped", Verdict.SKIPPED, message="not here"
    ),
    run_samples.result(
        "selftests/races/test_c.py::test_race", stdout="seed 1: 20 rounds, 19 overlapped\n"
    ),
)

# JavaScript helpers: type into a field, list the visible tests.
HELPERS = """
const form = document.forms[0];
const shown = () => [...document.querySelectorAll(".tests > li")]
  .filter((row) => row.checkVisibility())
  .map((row) => row.querySelector(".name").textContent.split("::")[1]);
const type = (name, value) => {
  form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
};
const later = () => new Promise((done) => setTimeout(done, 20));
"""


@pytest.fixture(scope="module")
def browser() -> list[str]:
    """Command line of a headless browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return [name, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    pytest.skip("no browser: install chromium")


def _runs(number: int) -> list[Run]:
    runs = [run_samples.run(*TESTS), run_samples.run(*TESTS, profile="debug")]
    other = replace(TESTS[0], verdict=Verdict.HANG, outcome="failed", message="no word")
    again = run_samples.run(other, *TESTS[1:], started="2026-01-03T10:00:00Z")
    return [summary_json.sanitize_run(run) for run in [*runs, again][:number]]


def _page(number: int, sections: Sequence[Section] = ()) -> str:
    runs = _runs(number)
    past = histories([run_history.record_of(run) for run in runs])
    return html_report.render(runs, parse(run_samples.CONTRACT), past, sections)


def _ask(browser: list[str], folder: Path, page: str, script: str, fragment: str = "") -> Any:
    """Return the result of a script that runs in a page after the page's own script."""
    answer = (
        f"<script>(async () => {{ {HELPERS} let answer; try {{ answer = await (async () => "
        f"{{ {script} }})(); }} catch (error) {{ answer = String(error); }}"
        "document.body.replaceChildren(); document.body.id = 'answer';"
        "document.body.textContent = JSON.stringify(answer); })();</script></body>"
    )
    file = folder / "report.html"
    file.write_text(page.replace("</body>", answer), encoding="utf-8")
    options = [f"--user-data-dir={folder / 'user'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*browser, *options, f"{file.as_uri()}{fragment}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    match = re.search(r'<body id="answer">(.*)</body>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(markup.unescape(match[1]))


@pytest.fixture
def ask(browser: list[str], tmp_path: Path) -> Ask:
    """A function that runs a script in the report of one run."""
    return partial(_ask, browser, tmp_path, _page(1))


def test_search_and_filters_show_matching_tests_only(ask: Ask) -> None:
    answer = ask("""
      const seen = { all: shown() };
      type("text", "FOUND ipv6"); seen.words = shown();
      type("text", "needle"); seen.inside = shown();
      type("text", ""); type("clause", "sn-2"); seen.clause = shown();
      type("verdict", "splat"); seen.both = shown();
      seen.output = form.querySelector("output").textContent;
      seen.headings = [...document.querySelectorAll("#tests h3")]
        .filter((item) => item.checkVisibility()).map((item) => item.textContent);
      form.querySelector("button").click(); await later(); seen.reset = shown().length;
      return seen;
    """)
    everything = ["test_splat", "test_found[ipv4]", "test_found[ipv6]", "test_race", "test_skipped"]
    assert answer == {
        "all": everything,
        "words": ["test_found[ipv6]"],
        "inside": ["test_splat"],
        "clause": ["test_splat", "test_found[ipv6]"],
        "both": ["test_splat"],
        "output": "1 of 5 tests",
        "headings": ["snoop"],
        "reset": 5,
    }


def test_link_to_clause_or_test_shows_it(ask: Ask) -> None:
    answer = ask("""
      const open = () => [...document.querySelectorAll(".tests > li")]
        .filter((row) => row.querySelector("details").open).map((row) => row.id);
      const seen = {};
      document.querySelector('#clauses a[href="#clause=MM-1"]').click();
      await later(); seen.clause = shown();
      const link = document.querySelector("#failures h3 a");
      link.click(); await later();
      seen.test = open().join() === link.getAttribute("href").slice(1);
      seen.all = shown().length;
      seen.files = [...document.querySelectorAll(".failure a[href*=dmesg]")]
        .map((item) => item.getAttribute("href"));
      return seen;
    """)
    assert answer == {
        "clause": ["test_found[ipv4]", "test_found[ipv6]"],
        "test": True,
        "all": 5,
        "files": ["artefacts/x/dmesg.txt"],
    }


def test_url_fragment_filters_by_clause(browser: list[str], tmp_path: Path) -> None:
    shown = _ask(browser, tmp_path, _page(1), "return shown();", "#clause=SN-2")
    assert shown == ["test_splat", "test_found[ipv6]"]


def test_printing_opens_failures(ask: Ask) -> None:
    answer = ask("""
      const folds = [...document.querySelectorAll(".failure details")];
      const before = folds.filter((item) => item.open).length;
      dispatchEvent(new Event("beforeprint"));
      const printed = folds.filter((item) => item.open).length;
      dispatchEvent(new Event("afterprint"));
      const after = folds.filter((item) => item.open).length;
      return { closed: before < folds.length, printed: printed === folds.length,
               same: before === after };
    """)
    assert answer == {"closed": True, "printed": True, "same": True}


def test_several_runs_are_merged_with_the_worst_verdict_first(
    browser: list[str], tmp_path: Path
) -> None:
    answer = _ask(
        browser,
        tmp_path,
        _page(3),
        """
      const seen = { all: shown().length };
      const row = document.querySelector(".tests > li[data-verdict~=hang]");
      seen.badges = [...row.querySelectorAll(".badge")].map((item) => item.textContent);
      type("verdict", "hang"); seen.hang = shown();
      type("verdict", "passed"); seen.passed = shown().length;
      document.querySelector("#sources a").click(); await later();
      seen.run = document.querySelector("#run-1 > details").open;
      seen.columns = [...document.querySelectorAll("#clauses thead th")]
        .map((item) => item.textContent);
      return seen;
    """,
    )
    assert answer == {
        "all": 5,
        "badges": ["hang", "hang", "passed", "passed"],
        "hang": ["test_found[ipv4]"],
        "passed": 3,
        "run": True,
        "columns": ["Sentence", "base 2 runs", "debug"],
    }


def test_extra_sections_are_linked_folded_and_plotted(browser: list[str], tmp_path: Path) -> None:
    answer = _ask(
        browser,
        tmp_path,
        _page(1, section_samples.everything()),
        """
      const seen = {}, all = (what) => [...document.querySelectorAll(what)];
      seen.links = all("#proved p a").map((item) => item.getAttribute("href"));
      document.querySelector('#proved a[href="#coverage"]').click(); await later();
      seen.top = Math.abs(document.getElementById("coverage").getBoundingClientRect().top) < 50;
      seen.bugs = all("#bugs summary code").filter((item) => item.checkVisibility())
        .map((item) => item.textContent);
      seen.code = all("#coverage .code").some((item) => item.checkVisibility());
      document.querySelector("#coverage summary").click(); await later();
      seen.unfolded = all("#coverage .code").filter((item) => item.checkVisibility()).length;
      seen.colours = new Set(all("#coverage tr").map(
        (row) => getComputedStyle(row).backgroundColor)).size;
      const bars = all("#bugs .bar").map((bar) => bar.getBoundingClientRect().width);
      seen.bars = bars.map((width) => Math.round(4 * width / Math.max(...bars)));
      seen.plot = document.querySelector("#cost img").naturalWidth;
      return seen;
    """,
    )
    assert answer == {
        "links": ["#bugs", "#coverage", "#cost"],
        "top": True,
        "bugs": ["missed", "excused"],
        "code": False,
        "unfolded": 2,
        "colours": 3,
        "bars": [4, 2, 0, 2, 2],
        "plot": 504,
    }


@pytest.mark.parametrize(
    "sections", [section_samples.ABSENT, section_samples.everything()], ids=["absent", "all"]
)
@pytest.mark.parametrize("number", [1, 3])
def test_page_fits_into_a_phone_viewport(
    browser: list[str], tmp_path: Path, number: int, sections: Sequence[Section]
) -> None:
    """Uses an iframe: a browser window cannot be that narrow."""
    inner = markup.escape(_page(number, sections))
    frame = f'<iframe width="{PHONE}" height="800" style="border: 0" srcdoc="{inner}"></iframe>'
    script = f"""
      const frame = document.querySelector("iframe");
      // A frame starts with an empty document, which counts as loaded.
      while (!frame.contentDocument?.querySelector("#slowest")) await later();
      const page = frame.contentDocument;
      for (const item of page.querySelectorAll("details")) item.open = true;
      const inside = (item) => item.closest(".scroll, pre");
      return {{
        width: page.documentElement.scrollWidth,
        wide: [...page.querySelectorAll("main *")].filter((item) => !inside(item)
          && item.getBoundingClientRect().right > {PHONE}).map((item) => item.outerHTML),
        tests: page.querySelectorAll(".tests > li").length,
      }};
    """
    page = f"<!doctype html><body><form></form>{frame}</body>"
    answer = _ask(browser, tmp_path, page, script)
    assert answer == {"width": PHONE, "wide": [], "tests": 5}
