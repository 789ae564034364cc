# SPDX-License-Identifier: GPL-2.0-only
"""Cells on fake machines: verdicts, resuming, the page, Ctrl-C, and what the command refuses."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.host.machines.machine import Job, Machine, MachineLostError
from fixtures.host.matrix import cli
from fixtures.host.matrix.cells import Cell
from fixtures.host.model.results import Run, RunInfo, TestResult, Verdict, outcome_of
from fixtures.host.report import summary_json
from fixtures.host.util.errors import SERIES_MISSING

BASE = Cell("base", "x86-64", "gcc", "push", 80, "pass")
S390X = Cell("base", "s390x", "gcc", "push", 80, "pass")
UNPATCHED = Cell("unpatched", "x86-64", "gcc", "push", 80, "series-missing")
KERNELS = {cell.name: "7.3.4" for cell in (BASE, S390X, UNPATCHED)}
Work = Callable[[Job, Path, threading.Event], int]


@dataclass
class FakeMachine:
    """Runs a function in place of a job."""

    work: Work
    name: str = "worker"

    def run(self, job: Job, folder: Path, stop: threading.Event) -> int:
        folder.mkdir(parents=True)
        return self.work(job, folder, stop)


def _report(folder: Path, *verdicts: Verdict, interrupted: bool = False) -> None:
    tests = tuple(
        TestResult(
            nodeid=f"selftests/lookup/test_a.py::test_{at}",
            area="lookup",
            verdict=verdict,
            outcome=outcome_of(verdict),
        )
        for at, verdict in enumerate(verdicts)
    )
    info = RunInfo(profile="base", kernel_release="7.3.4", accel="tcg", interrupted=interrupted)
    (folder / summary_json.NAME).write_text(summary_json.render([Run(info, tests)]))
    (folder / "report.html").write_text("report")


def passing(job: Job, folder: Path, stop: threading.Event) -> int:  # noqa: ARG001
    """Write a report of a run that passed."""
    _report(folder, Verdict.PASSED, Verdict.SKIPPED)
    return 0


def _run(
    folder: Path, work: Work, *cells: Cell, arguments: tuple[str, ...] = (), restart: bool = False
) -> int:
    machines: list[Machine] = [FakeMachine(work)]
    return cli.Matrix(cells, KERNELS, arguments, folder).run(lambda: machines, restart)


def _verdicts(folder: Path) -> dict[str, str]:
    found = json.loads((folder / "matrix.json").read_text())
    return {name: cell["verdict"] for name, cell in found.items()}


def test_cells_that_pass_give_a_page_with_counts_and_links(tmp_path: Path) -> None:
    arguments = []

    def work(job: Job, folder: Path, stop: threading.Event) -> int:
        arguments.append(job.arguments)
        return passing(job, folder, stop)

    assert _run(tmp_path, work, BASE, S390X, arguments=("-k", "udp")) == 0
    assert arguments == [
        ("--vmconfig", "base", "-k", "udp"),
        ("--vmconfig", "base", "--arch", "s390x", "-k", "udp"),
    ]
    page = (tmp_path / "matrix.html").read_text()
    assert 'href="base-s390x-gcc/report.html"' in page
    assert "1 passed" in page
    text = (tmp_path / "matrix.md").read_text()
    row = (
        "| base | 7.3.4 | [**passed**](base-x86-64-gcc/report.html): 1 passed, 0 failed, 1 skipped"
    )
    assert row in text
    assert "## Matrix: 2 cells: 2 passed" in text


def test_failed_cell_is_a_result_and_the_next_one_runs(tmp_path: Path) -> None:
    def work(job: Job, folder: Path, stop: threading.Event) -> int:
        if "s390x" in job.arguments:
            return passing(job, folder, stop)
        _report(folder, Verdict.PANIC, Verdict.PASSED)
        return 1

    assert _run(tmp_path, work, BASE, S390X) == 1
    assert _verdicts(tmp_path) == {BASE.name: "failed", S390X.name: "passed"}


def test_negative_control_passes_if_the_series_is_missing(tmp_path: Path) -> None:
    def refuse(job: Job, folder: Path, stop: threading.Event) -> int:  # noqa: ARG001
        text = (
            f"error: kernel 7.3.4 (profile unpatched) {SERIES_MISSING}. Missing features:\n  - x\n"
        )
        (folder / "output.txt").write_text(text)
        return 1

    assert _run(tmp_path / "a", refuse, UNPATCHED) == 0
    assert _run(tmp_path / "b", passing, UNPATCHED) == 1
    assert _run(tmp_path / "c", refuse, BASE) == 1


def test_bad_input_in_a_cell_is_an_error_with_its_line(tmp_path: Path) -> None:
    def refuse(job: Job, folder: Path, stop: threading.Event) -> int:  # noqa: ARG001
        (folder / "output.txt").write_text("error: no compiler: apt-get install it\nother\n")
        return 2

    assert _run(tmp_path, refuse, BASE) == 1
    assert _verdicts(tmp_path) == {BASE.name: "error"}
    assert "no compiler: apt-get install it" in (tmp_path / "matrix.html").read_text()


def test_second_run_continues_with_the_cells_without_a_result(tmp_path: Path) -> None:
    jobs: list[str] = []

    def lose_second(job: Job, folder: Path, stop: threading.Event) -> int:
        jobs.append(job.name)
        if job.name == S390X.slug:
            raise MachineLostError("worker: gone")
        return passing(job, folder, stop)

    def work(job: Job, folder: Path, stop: threading.Event) -> int:
        jobs.append(job.name)
        return passing(job, folder, stop)

    assert _run(tmp_path, lose_second, BASE, S390X) == 3
    assert _verdicts(tmp_path) == {BASE.name: "passed", S390X.name: "lost"}
    assert _run(tmp_path, work, BASE, S390X) == 0
    assert jobs == [BASE.slug, S390X.slug, S390X.slug]
    assert _run(tmp_path, work, BASE, arguments=("-k", "udp")) == 0
    assert _run(tmp_path, work, BASE, arguments=("-k", "udp"), restart=True) == 0
    assert jobs[3:] == [BASE.slug, BASE.slug]


def test_ctrl_c_keeps_what_the_cell_has_and_it_is_run_again(tmp_path: Path) -> None:
    def work(job: Job, folder: Path, stop: threading.Event) -> int:  # noqa: ARG001
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(60)
        _report(folder, Verdict.PASSED, interrupted=True)
        return 2

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, work, BASE, S390X)
    assert _verdicts(tmp_path) == {BASE.name: "interrupted", S390X.name: "not run"}
    assert (tmp_path / BASE.slug / "report.html").exists()
    assert _run(tmp_path, passing, BASE, S390X) == 0


def test_page_is_rendered_from_results_of_several_folders(tmp_path: Path) -> None:
    _run(tmp_path / "one", passing, BASE)
    _run(tmp_path / "two", passing, S390X)
    matrix = cli.Matrix([BASE, S390X, UNPATCHED], KERNELS, (), tmp_path / "all")
    matrix.find_results([tmp_path / "one", tmp_path / "two"])
    assert matrix.finish() == 3
    assert [*_verdicts(tmp_path / "all").values()] == ["passed", "passed", "not run"]
    assert 'href="../one/base-x86-64-gcc/report.html"' in (tmp_path / "all/matrix.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "base", "--vmconfig", "debug"], "--vmconfig: a cell sets it"),
        (["--cells", "nope"], "--cells nope: matrix.toml has no such cell"),
        (["--cells", "base", "--render", "/nonexistent"], "/nonexistent: no cell.json"),
        (["--cells", "base", "--machine", "-oProxyCommand=x"], "--machine"),
        (["--cells", "base", "--machine", "local", "--machine", "local"], "--machine local"),
    ],
    ids=["own-option", "cell", "render", "host", "local-twice"],
)
def test_bad_input_is_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = [f"{word}" for word in arguments]
    if "-oProxyCommand=x" in fixed:
        fixed[-2:] = ["--machine=-oProxyCommand=x"]
    assert cli.main([*fixed, "--to", str(tmp_path / "to")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
