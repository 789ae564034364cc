# SPDX-License-Identifier: GPL-2.0-only
"""Bisection of a real git repository with a script in place of build and VM."""

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.host.bisect.cli import bisect, main
from fixtures.host.bisect.step import ABORT, BAD, GOOD, SKIP, classify
from fixtures.host.model.results import Verdict
from fixtures.host.util.errors import UserError
from tests.unit.host.report import run_samples

STATES = ("good", "good", "skip", "good", "bad", "skip", "bad", "bad")
"""State of each commit: the fifth is the first bad one."""

SCRIPT = (
    "import pathlib, sys\n"
    "state = pathlib.Path('state').read_text()\n"
    "with open(sys.argv[1], 'a') as log: print(state, file=log)\n"
    "sys.exit({'good': 0, 'bad': 1, 'skip': 125, 'stop': 255}[state.split()[1]])\n"
)


def _git(folder: Path, *args: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _repository(folder: Path, states: tuple[str, ...]) -> list[str]:
    """Make a repository with one commit for each state; return the commits."""
    folder.mkdir()
    _git(folder, "init", "-q")
    commits = []
    for number, state in enumerate(states):
        (folder / "state").write_text(f"{number} {state}")
        _git(folder, "add", ".")
        _git(folder, "commit", "-qm", f"change {number}")
        commits.append(_git(folder, "rev-parse", "HEAD"))
    return commits


def _bisect(tmp_path: Path, states: tuple[str, ...], good: int, bad: int) -> int:
    tree = tmp_path / "a tree"
    commits = _repository(tree, states)

    def step(_clone: Path, report: Path) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(report.with_name("steps"))]

    return bisect(tree, commits[good], commits[bad], step, tmp_path / "work")


def test_first_bad_commit_is_found_and_the_tree_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bisect(tmp_path, STATES, 0, 7) == 0
    assert "the first bad commit is " in capsys.readouterr().out
    log = (tmp_path / "work/bisect.log").read_text()
    assert "# first bad commit: " in log
    assert "change 4" in log.splitlines()[-1]
    assert _git(tmp_path / "a tree", "status", "--porcelain") == ""
    assert not (tmp_path / "a tree/.git/BISECT_LOG").exists()
    assert (tmp_path / "work/steps").read_text().startswith("7 bad\n0 good\n")


def test_commits_that_cannot_be_tested_leave_no_single_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bisect(tmp_path, ("good", "skip", "skip", "bad"), 0, 3) == 1
    assert "no single commit found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("good", "bad", "text"),
    [(0, 1, "--bad .* is good"), (2, 7, "--good .* is not testable"), (4, 7, "--good .* is bad")],
)
def test_wrong_end_is_refused(tmp_path: Path, good: int, bad: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        _bisect(tmp_path, STATES, good, bad)


def test_interrupted_step_stops_the_bisection(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _bisect(tmp_path, ("good", "stop", "bad"), 0, 2)


def test_stopped_bisection_can_be_started_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _bisect(tmp_path, ("good", "stop", "bad"), 0, 2)
    tree = tmp_path / "a tree"
    (tree / "state").write_text("3 bad")
    _git(tree, "commit", "-qam", "change 3")

    def step(_clone: Path, report: Path) -> list[str]:
        return [sys.executable, "-c", SCRIPT.replace("255", "1"), str(report.with_name("steps"))]

    assert bisect(tree, "HEAD~3", "HEAD", step, tmp_path / "work") == 0


def test_unknown_revision_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _repository(tmp_path / "tree", ("good",))
    args = [
        "--good",
        "nowhere",
        "--bad",
        "HEAD",
        "--kernel-tree",
        str(tmp_path / "tree"),
        "-k",
        "t",
    ]
    assert main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "nowhere" in line


def test_missing_end_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--good", "v7.3", "-k", "t"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


P, F, S = Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED


@pytest.mark.parametrize(
    ("returncode", "verdicts", "status"),
    [
        (0, [P, S], GOOD),
        (1, [P, F], BAD),
        (1, [Verdict.PANIC], BAD),
        (1, [Verdict.FLAKY], BAD),
        (1, [P, Verdict.INFRA], SKIP),
        (1, [Verdict.LOST], SKIP),
        (1, [Verdict.INFRA, F], BAD),
        (1, [S], SKIP),
        (2, None, SKIP),
        (1, None, SKIP),
        (3, None, SKIP),
        (5, [], ABORT),
        (130, None, ABORT),
        (-9, None, ABORT),
    ],
)
def test_status_for_git_bisect(
    returncode: int, verdicts: list[Verdict] | None, status: int
) -> None:
    runs = []
    if verdicts is not None:
        results = [run_samples.result(f"a.py::t{n}", v) for n, v in enumerate(verdicts)]
        runs = [run_samples.run(*results)]
    assert classify(returncode, runs)[0] == status


def test_interrupted_run_aborts() -> None:
    run = run_samples.run(run_samples.result(), interrupted=True)
    assert classify(2, [run])[0] == ABORT


def test_hooks_and_variables_of_the_user_are_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "hooks/post-checkout"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\nexit 1\n")
    hook.chmod(0o755)
    (tmp_path / "gitconfig").write_text(f"[core]\n\thooksPath = {hook.parent}\n")
    tree = tmp_path / "a tree"
    commits = _repository(tree, STATES)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))

    def step(_clone: Path, report: Path) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(report.with_name("steps"))]

    assert bisect(tree, commits[0], commits[7], step, tmp_path / "work") == 0
    assert not (tmp_path / "hook-ran").exists()
