# SPDX-License-Identifier: GPL-2.0-only
"""What is made of a run that ended before its first test."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.kernel import kernel_cache
from fixtures.host.model.mutation_results import BOOT, Fate, Result
from fixtures.host.mutation import mutant_run
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.util.process_group import Processes

_SPLAT = "[    1.2] BUG: sleeping function called from invalid context\n[    1.2] RBP: error: 0x0"
_SAID = "the kernel complains before any test: BUG: sleeping function"
_COMPLAINED = f"flowmap: booting\nerror: {_SAID}\n{_SPLAT}\n"


@pytest.fixture
def bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mutant:
    """A bug whose kernel is built already."""
    kernel = SimpleNamespace(directory=tmp_path)
    monkeypatch.setattr(mutant_run, "provide_kernel", lambda *_: kernel)
    monkeypatch.setattr(kernel_cache, "remove", lambda _: None)
    return Mutant(tmp_path / "bug.patch", "a bug", "", ("FM-1",), "own", 3, "base")


class _Ended:
    """Runs nothing: each run ended like this."""

    def __init__(self, status: int, stderr: str = "") -> None:
        self._status = status
        self._stderr = stderr
        self.argv: list[str] = []

    def run(self, argv: list[str], _cwd: Path) -> "subprocess.CompletedProcess[str]":
        self.argv = argv
        return subprocess.CompletedProcess(argv, self._status, "", self._stderr)


def _attempt(bug: Mutant, folder: Path, ended: _Ended) -> Result:
    return mutant_run.attempt(bug, folder / "run", cast(Processes, ended))


def test_kernel_that_complains_while_booting_is_noticed(bug: Mutant, tmp_path: Path) -> None:
    result = _attempt(bug, tmp_path, _Ended(1, _COMPLAINED))
    assert (result.fate, result.test, result.verdict) == (Fate.KILLED, BOOT, "splat")
    assert result.message == _SAID
    assert result.splat == _SPLAT
    assert result.command.startswith("tox -e vm -- --vmconfig=base --mutant=")
    assert result.is_accusation


def test_run_that_our_own_machinery_ended_is_no_verdict(bug: Mutant, tmp_path: Path) -> None:
    for status in (2, 3):
        result = _attempt(bug, tmp_path, _Ended(status, "error: too little memory\n"))
        assert (result.fate, result.message) == (Fate.UNRUN, "error: too little memory")


def test_traceback_is_no_verdict(bug: Mutant, tmp_path: Path) -> None:
    ended = _Ended(1, "Traceback (most recent call last):\nRuntimeError: error: none\n")
    assert _attempt(bug, tmp_path, ended).fate is Fate.UNRUN


def test_right_kernel_is_booted_where_it_is_the_boot_that_told(tmp_path: Path) -> None:
    ended = _Ended(1, _COMPLAINED)
    assert not mutant_run.passing("base", [BOOT], tmp_path / "run", cast(Processes, ended))
    assert BOOT not in ended.argv
    assert "-k" in ended.argv
