# SPDX-License-Identifier: GPL-2.0-only
"""``--affected --watch``: a saved file starts a new run, and stops the one that is under way."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.pytest_plugin import watch
from fixtures.host.pytest_plugin.watch import State, file_state, wait_for_change
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, Harness

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_POLL_INTERVAL", 0.01)
    monkeypatch.delenv("TOX_ENV_NAME", raising=False)


def test_state_has_sources_and_changed_files_of_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    tree.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    (tree / "a.c").write_text("x")
    for name in ("selftests/test_a.py", "selftests/__pycache__/a.pyc", "patches/.a.swp", "build/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    names = {str(Path(path).relative_to(tmp_path)) for path in file_state(tmp_path, tree)}
    assert names == {"selftests/test_a.py", "linux/a.c", "linux/.git/HEAD"}


def test_change_is_awaited_until_it_is_complete() -> None:
    states: Iterator[State] = iter([{}, {"a": (1, 1)}, {"a": (2, 5)}, {"a": (2, 5)}, {}])
    assert wait_for_change({}, lambda: next(states), lambda: False) == {"a": (2, 5)}


def test_wait_ends_without_a_change_when_told() -> None:
    stops = iter([False, False, True])
    assert wait_for_change({}, dict, lambda: next(stops)) == {}


def test_save_during_a_run_stops_it_and_starts_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, file = tmp_path / "log", tmp_path / "a.py"
    file.write_text("x")
    # The first run saves the file and would never end; the second ends at once.
    script = (
        "import pathlib, signal, sys\n"
        f"log, file = pathlib.Path({str(log)!r}), pathlib.Path({str(file)!r})\n"
        "first = not log.exists()\n"
        "with log.open('a') as out: print('began', file=out)\n"
        "if not first: sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "file.write_text('saved')\n"
        "try: signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    with log.open('a') as out: print('stopped', file=out)\n"
    )

    def look(*_: object) -> State:
        if log.exists() and log.read_text().count("began") == 2 and ended:
            raise KeyboardInterrupt
        return {str(file): (file.stat().st_mtime_ns, file.stat().st_size)}

    ended: list[str] = []
    monkeypatch.setattr(watch, "log", lambda text: ended.append(text) if "Ctrl-C" in text else None)
    monkeypatch.setattr(watch, "file_state", look)
    monkeypatch.setattr(watch, "_command", lambda _config: [sys.executable, "-c", script])
    config = SimpleNamespace(
        getoption=lambda name: name == "affected",
        option=None,
        invocation_params=SimpleNamespace(dir=tmp_path, args=()),
    )
    monkeypatch.setattr(watch, "from_namespace", lambda _option: SimpleNamespace(tree=None))
    assert watch.watch(cast(pytest.Config, config)) == 5
    assert log.read_text().split() == ["began", "stopped", "began"]
    assert capsys.readouterr().err == ""


def test_watch_without_affected_is_refused(harness: Harness, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*PLUGINS, "--watch", "selftests", no_reraise_ctrlc=True)
    assert result.ret == 2
    result.stderr.fnmatch_lines(["error: --watch repeats the affected tests: *"])
    assert harness.events == []


@pytest.mark.parametrize("option", ["--pdb", "--shell-on-failure", "--gdb", "--break=f"])
def test_watch_of_a_run_that_asks_the_user_is_refused(
    harness: Harness, pytester: pytest.Pytester, option: str
) -> None:
    result = pytester.runpytest_inprocess(
        *PLUGINS, "--affected", "--watch", option, "selftests", no_reraise_ctrlc=True
    )
    assert result.ret == 2
    (line,) = result.stderr.lines
    assert line.startswith("error: --watch stops a run when a file is saved: use --keep-vm")
    assert harness.events == []
