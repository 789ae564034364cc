# SPDX-License-Identifier: GPL-2.0-only
"""Results of mutant runs that end before the first test."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.kernel import kernel_cache
from fixtures.host.model.mutation_results import BOOT, MutantResult, MutantStatus
from fixtures.host.mutation import mutant_run
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.util.errors import BuildFailedError, UserError
from fixtures.host.util.stoppable_subprocesses import ProcessGroup
from fixtures.host.util.subprocess_util import CommandError

_SPLAT = "[    1.2] BUG: sleeping function called from invalid context\n[    1.2] RBP: error: 0x0"
_TITLE = "the kernel complains before any test: BUG: sleeping function"
_STDERR = f"flowmap: booting\nerror: {_TITLE}\n{_SPLAT}\n"


@pytest.fixture
def mutant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mutant:
    """A mutant whose kernel need not be built."""
    kernel = SimpleNamespace(directory=tmp_path)
    monkeypatch.setattr(mutant_run, "provide_kernel", lambda *_: kernel)
    monkeypatch.setattr(kernel_cache, "remove", lambda _: None)
    return Mutant(tmp_path / "a-bug.patch", "a bug", "", ("FM-1",), "own", 3, "base")


class _FakeProcesses:
    """Runs nothing: each run has this exit status and stderr."""

    def __init__(self, status: int, stderr: str = "") -> None:
        self._status = status
        self._stderr = stderr
        self.argv: list[str] = []

    def run(self, argv: list[str], _cwd: Path) -> "subprocess.CompletedProcess[str]":
        self.argv = argv
        return subprocess.CompletedProcess(argv, self._status, "", self._stderr)


def _attempt(mutant: Mutant, folder: Path, ended: _FakeProcesses) -> MutantResult:
    return mutant_run.run_mutant(mutant, folder / "run", cast(ProcessGroup, ended))


def test_splat_during_boot_kills_mutant(mutant: Mutant, tmp_path: Path) -> None:
    result = _attempt(mutant, tmp_path, _FakeProcesses(1, _STDERR))
    assert (result.fate, result.test, result.verdict) == (MutantStatus.KILLED, BOOT, "splat")
    assert result.message == _TITLE
    assert result.splat == _SPLAT
    assert result.command.startswith("tox -e vm -- --vmconfig=base --mutant=")
    assert result.is_unconfirmed


def test_harness_error_is_inconclusive(mutant: Mutant, tmp_path: Path) -> None:
    for status in (2, 3):
        result = _attempt(mutant, tmp_path, _FakeProcesses(status, "error: too little memory\n"))
        assert (result.fate, result.message) == (
            MutantStatus.INCONCLUSIVE,
            "error: too little memory",
        )


def test_traceback_is_inconclusive(mutant: Mutant, tmp_path: Path) -> None:
    ended = _FakeProcesses(1, "Traceback (most recent call last):\nRuntimeError: error: none\n")
    assert _attempt(mutant, tmp_path, ended).fate is MutantStatus.INCONCLUSIVE


def test_boot_kill_is_confirmed_by_booting_unmutated_kernel(tmp_path: Path) -> None:
    ended = _FakeProcesses(1, _STDERR)
    assert not mutant_run.passing_on_unmutated_kernel(
        "base", [BOOT], tmp_path / "run", cast(ProcessGroup, ended)
    )
    assert BOOT not in ended.argv
    assert "-k" in ended.argv


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (BuildFailedError("a.c:1: error"), MutantStatus.BUILD_FAILED),
        (UserError("3.0 GiB of memory are needed"), MutantStatus.INCONCLUSIVE),
        (OSError(28, "No space left on device"), MutantStatus.INCONCLUSIVE),
        (CommandError(["depmod"], 1, "", "Killed"), MutantStatus.INCONCLUSIVE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_compiler_errors_are_failed_builds(
    mutant: Mutant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    fate: MutantStatus,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(mutant_run, "provide_kernel", fail)
    assert _attempt(mutant, tmp_path, _FakeProcesses(0)).fate is fate
