# SPDX-License-Identifier: GPL-2.0-only
"""Traceability matrix: state of each clause in each profile."""

import pytest

from fixtures.host.model.contract_clauses import parse
from fixtures.host.model.results import Verdict
from fixtures.host.report import (
    html_report,
    markdown_summary,
    traceability,
)
from tests.unit.host.report import run_samples

CLAUSES = parse(run_samples.CONTRACT)


def test_matrix_has_a_state_per_clause_and_profile() -> None:
    first = run_samples.run(
        run_samples.result("a.py::1", clauses=("MM-1", "MM-2")),
        run_samples.result("a.py::2", Verdict.PANIC, clauses=("MM-2",)),
        run_samples.result("a.py::3", Verdict.SKIPPED, clauses=("SN-1",)),
    )
    second = run_samples.run(run_samples.result("a.py::1", clauses=("SN-1",)), profile="debug")
    rows = traceability.build_matrix([first, second], CLAUSES)
    assert [[cell.state for cell in row.cells] for row in rows] == [
        ["passed", "none"],
        ["failed", "none"],
        ["skipped", "passed"],
        ["none", "none"],
    ]
    assert rows[1].cells[0].words == "1 passed, 1 failed"
    assert traceability.uncovered(rows) == ["SN-2"]
    assert traceability.count_proved(rows) == 2


def test_clause_counts_its_sentences_that_hold() -> None:
    runs = [
        run_samples.run(
            run_samples.result("a.py::1", clauses=("FM-1.1", "FM-2.1")),
            run_samples.result("a.py::2", Verdict.PANIC, clauses=("FM-2.2",)),
            run_samples.result("a.py::3", clauses=("FM-3",)),
        )
    ]
    rows = traceability.build_matrix(runs, parse(run_samples.NUMBERED_CONTRACT))
    ((group, clauses),) = traceability.by_clause(rows)
    assert group == "the map"
    assert [(clause.id, clause.title, len(clause.rows)) for clause in clauses] == [
        ("FM-1", "Creation", 2),
        ("FM-2", "Cost", 2),
        ("FM-3", "", 1),
    ]
    assert [clause.cells[0] for clause in clauses] == [
        traceability.Cell("none", "1 of 2 hold"),
        traceability.Cell("failed", "1 of 2 hold"),
        traceability.Cell("passed", "1 of 1 hold"),
    ]


def test_clause_proved_by_other_means_is_not_untested() -> None:
    clauses = parse(
        "## UP: upstream\n\n- **UP-1** Same. Proved by: a document.\n"
        "- **UP-2** Clean. Open: not tested yet.\n- **UP-3** Logged.\n"
    )
    runs = [run_samples.run(run_samples.result(clauses=("UP-3",)))]
    rows = traceability.build_matrix(runs, clauses)
    assert (traceability.proved_by_other_means(rows), traceability.untested(rows)) == (
        ["UP-1"],
        ["UP-2"],
    )
    page = html_report.render(runs, clauses)
    assert "1 of 3 sentences of the contract hold in the tests that ran; 1 is proved by" in page
    assert "1 had no test" in page
    text = markdown_summary.render(runs, clauses)
    assert "Proved by other means, see the contract: UP-1." in text
    assert "No test: UP-2." in text


@pytest.mark.parametrize(
    ("verdicts", "state", "words"),
    [
        ([Verdict.PASSED, Verdict.PASSED], "passed", "1 passed"),
        ([Verdict.PASSED, Verdict.HANG], "failed", "1 failed"),
        ([Verdict.SKIPPED, Verdict.PASSED], "passed", "1 passed"),
        ([Verdict.SKIPPED, Verdict.FAILED], "failed", "1 failed"),
        ([Verdict.SKIPPED, Verdict.SKIPPED], "skipped", "1 skipped"),
    ],
    ids=["passed-passed", "passed-hang", "skipped-passed", "skipped-failed", "skipped-skipped"],
)
@pytest.mark.parametrize("way", [1, -1], ids=["in-order", "reversed"])
def test_matrix_counts_a_test_of_several_runs_once(
    verdicts: list[Verdict], state: str, words: str, way: int
) -> None:
    runs = [
        run_samples.run(run_samples.result("a.py::1", verdict, clauses=("MM-1",)), started=f"{at}")
        for at, verdict in enumerate(verdicts[::way])
    ]
    (cell,) = traceability.build_matrix(runs, CLAUSES)[0].cells
    assert (cell.state, cell.words) == (state, words)
