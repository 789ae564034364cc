# SPDX-License-Identifier: GPL-2.0-only
"""Progress of a run on a terminal and in a log, in real pytest runs with fakes for the VMs."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.host.pytest_plugin import run_progress, run_steps
from fixtures.host.pytest_plugin.run_progress import RunProgress
from fixtures.host.pytest_plugin.run_steps import RunSteps
from fixtures.host.report import run_history_store
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, Harness

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, harness: Harness) -> Run:
    """Function that runs pytest in this process."""
    assert harness.events == []
    return lambda *args: pytester.runpytest_inprocess(*PLUGINS, *args, "selftests")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest write to a terminal."""
    monkeypatch.setattr(RunProgress, "_is_terminal", lambda _self: True)


@pytest.mark.usefixtures("terminal")
def test_terminal_has_one_line_that_is_rewritten(run: Run) -> None:
    result = run()
    # pytester splits lines at \r, too.
    result.stdout.fnmatch_lines(
        [
            "1/2 done, about 5 s left *",
            "FAILED selftests/test_guest.py::test_fails *",
            "2/2 done *",
            "FAILED selftests/test_guest.py::test_fails - assert 1 == 2",
            "*1 failed, 1 passed*",
        ]
    )
    assert "test_guest.py .F" not in result.stdout.str()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("option", ["-v", "-q"])
def test_other_verbosity_leaves_output_to_pytest(run: Run, option: str) -> None:
    text = run(option).stdout.str()
    assert " done" not in text
    assert "PASSED" in text or ".F" in text


@pytest.mark.usefixtures("terminal")
def test_progress_ends_when_the_user_gets_the_terminal(run: Run, harness: Harness) -> None:
    def give_terminal(item: pytest.Item) -> None:
        progress = item.config.pluginmanager.getplugin("flowmap-progress")
        assert isinstance(progress, RunProgress)
        progress.stop()

    harness.before_test = give_terminal
    result = run()
    result.stdout.no_fnmatch_line("*2/2 done*")
    result.stdout.fnmatch_lines(["*1 failed, 1 passed*"])


def test_log_has_a_line_at_each_interval(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_progress, "_LOG_INTERVAL", 0.01)
    shown = threading.Event()
    show = RunProgress._show

    def show_and_tell(progress: RunProgress) -> None:
        show(progress)
        if progress._left._running:
            shown.set()

    monkeypatch.setattr(RunProgress, "_show", show_and_tell)

    def wait_for_line(_item: pytest.Item) -> None:
        shown.clear()
        assert shown.wait(60)

    harness.before_test = wait_for_line
    result = run("-k", "passes")
    result.stdout.fnmatch_lines(
        ["flowmap: 0/1 done, about * left; running: test_guest.py::test_passes (* s)"]
    )
    assert result.ret == 0


def test_fast_run_has_no_line_in_a_log(run: Run) -> None:
    run().stdout.no_fnmatch_line("*flowmap: *done*")


def test_cold_steps_are_summed_up_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_steps, "_MENTIONED", 0.0)
    steps = RunSteps(tmp_path)
    with steps.step("kernel"):
        pass
    with steps.step("image"):
        pass
    steps.finish()
    err = capsys.readouterr().err
    assert re.fullmatch(r"flowmap: prepared in .* s: kernel .* s, image .* s\n", err)
    assert run_history_store.typical_steps(tmp_path).keys() == {"kernel", "image"}


def test_warm_run_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = RunSteps(tmp_path)
    with steps.step("kernel"):
        pass
    steps.finish()
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_slow_step_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_history_store.store_steps(tmp_path, [("image", 40.0)])
    printed = threading.Event()
    lines: list[str] = []

    def log(text: str) -> None:
        lines.append(text)
        printed.set()

    monkeypatch.setattr(run_steps, "log", log)
    steps = RunSteps(tmp_path, interval=0.01)
    with steps.step("image"):
        assert printed.wait(60)
    assert lines[0].startswith("image: ")
    assert lines[0].endswith("so far, usually 40.0 s")
    with steps.step("kernel"), steps.task("Building", 200) as advance:
        advance(50)
        printed.clear()
        assert printed.wait(60)
    assert "so far, Building 50/200, about " in lines[-1]
    assert "Building" in capsys.readouterr().err


def test_unusable_history_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ledger").write_text("a file where a directory is needed")
    steps = RunSteps(tmp_path)
    steps._done.append(("image", 3.0))
    steps.finish()
    assert "cannot use the run history" in capsys.readouterr().err
