# SPDX-License-Identifier: GPL-2.0-only
"""Scheduler: cached results, and confirmation of kills on the unmutated kernel."""

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.model.mutation_results import MutantResult, MutantStatus
from fixtures.host.mutation import mutant_run
from fixtures.host.mutation.cli import format_result
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.mutation.result_cache import ResultCache
from fixtures.host.mutation.scheduler import Scheduler
from tests.unit.host.mutation.mutation_samples import CONFIRMED, KILLED, SOURCES, make_mutant


def test_cached_result_is_not_run_again(tmp_path: Path) -> None:
    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    cache.store(mutant, CONFIRMED)
    assert list(Scheduler(cache, tmp_path / "report", 1).results([mutant])) == [(mutant, CONFIRMED)]


@pytest.fixture
def confirmations(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The tests of each confirmation run; all mutants are killed, and all kills are confirmed."""
    runs: list[list[str]] = []

    def passing(_profile: str, tests: list[str], *_: object) -> set[str]:
        runs.append(tests)
        return set(tests)

    def attempt(mutant: Mutant, *_: object, **__: object) -> MutantResult:
        return replace(KILLED, name=mutant.name, test=f"t[{mutant.name}]")

    monkeypatch.setattr(mutant_run, "passing_on_unmutated_kernel", passing)
    monkeypatch.setattr(mutant_run, "run_mutant", attempt)
    return runs


@pytest.mark.parametrize("jobs", [1, 3])
def test_kills_are_confirmed_in_batches(
    tmp_path: Path, confirmations: list[list[str]], jobs: int
) -> None:
    mutants = [make_mutant(tmp_path, f"bug-{number}") for number in range(20)]
    cache = ResultCache(tmp_path / "cache", SOURCES)
    results = list(Scheduler(cache, tmp_path / "report", jobs).results(mutants))
    assert sorted(mutant.name for mutant, _ in results) == sorted(mutant.name for mutant in mutants)
    assert all(result.fate is MutantStatus.KILLED and result.sound for _, result in results)
    assert len(confirmations) == 2
    tests = [test for run in confirmations for test in run]
    assert sorted(tests) == sorted(f"t[{mutant.name}]" for mutant in mutants)


def test_kill_is_printed_before_confirmation(
    tmp_path: Path, confirmations: list[list[str]]
) -> None:
    printed = []

    def on_unconfirmed(mutant: Mutant, result: MutantResult) -> None:
        printed.append(format_result(mutant, result))
        assert not confirmations

    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    scheduler = Scheduler(cache, tmp_path / "report", 1, on_unconfirmed=on_unconfirmed)
    ((_, result),) = scheduler.results([mutant])
    assert [text.split()[:2] for text in printed] == [["unconfirmed", "a-bug:"]]
    assert format_result(mutant, result).split()[:2] == ["killed", "a-bug:"]


def test_killing_test_is_confirmed_only_once(
    tmp_path: Path, confirmations: list[list[str]]
) -> None:
    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    scheduler = Scheduler(cache, tmp_path / "report", 1, no_cache=True)
    assert list(scheduler.results([mutant])) == list(scheduler.results([mutant]))
    assert confirmations == [["t[a-bug]"]]


def test_unconfirmed_cached_kill_is_confirmed(
    tmp_path: Path, confirmations: list[list[str]]
) -> None:
    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    cache.store(mutant, KILLED)
    assert list(Scheduler(cache, tmp_path / "report", 1).results([mutant])) == [(mutant, CONFIRMED)]
    assert cache.find(mutant) == CONFIRMED
    assert confirmations == [[KILLED.test]]


def test_kill_by_test_failing_on_unmutated_kernel_is_inconclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutant_run, "run_mutant", lambda *_, **__: KILLED)
    monkeypatch.setattr(mutant_run, "passing_on_unmutated_kernel", lambda *_: set())
    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    ((_, result),) = Scheduler(cache, tmp_path / "report", 1).results([mutant])
    assert result.fate is MutantStatus.INCONCLUSIVE
    assert "does not pass on the unmutated kernel" in result.message
    assert cache.find(mutant) is None
