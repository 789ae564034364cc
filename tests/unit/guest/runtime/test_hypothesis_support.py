# SPDX-License-Identifier: GPL-2.0-only
"""Hypothesis runs: repeatable by seed, and a failure leaves a test and the database."""

import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fixtures.guest.runtime import hypothesis_support


class Counter(RuleBasedStateMachine):
    """Counts in steps of two, and fails above four."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @rule(by=st.just(2))
    def add(self, by: int) -> None:
        self.count += by
        assert self.count < 5

    @rule()
    def reset(self) -> None:
        self.count = 0


@pytest.fixture(autouse=True)
def _default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARTEFACTS", "DEADLINE_SCALE", "EFFORT", "EXAMPLES"):
        monkeypatch.delenv(f"FLOWMAP_{name}", raising=False)


def _tried_examples(seed: int) -> list[int]:
    tried: list[int] = []

    def attempt(item: int) -> None:
        tried.append(item)

    random.seed(seed)
    hypothesis_support.run_examples(attempt, 20, item=st.integers(0, 1 << 60))
    return tried


def test_failing_state_machine_has_shortest_sequence_as_test() -> None:
    random.seed(1)
    with pytest.raises(AssertionError) as failure:
        hypothesis_support.run_state_machine(Counter, 100, 20)
    text = failure.value.__notes__[-1]
    assert text.startswith("As a test:\n\nfrom ")
    code = text.removeprefix("As a test:\n\n")
    assert code.count("state.add(by=2)") == 3
    assert "reset" not in code
    # The printed test is executable and fails in the same way.
    scope: dict[str, object] = {}
    exec(code.replace(f"from {Counter.__module__} import Counter", ""), {"Counter": Counter}, scope)
    with pytest.raises(AssertionError):
        scope["test_replayed"]()  # type: ignore[operator]


def test_failure_archives_database_that_can_be_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(item: int) -> None:
        assert item < 1000

    monkeypatch.setenv("FLOWMAP_ARTEFACTS", str(tmp_path))
    with pytest.raises(AssertionError):
        hypothesis_support.run_examples(attempt, 50, item=st.integers(0, 1 << 60))
    # A single example is the simplest one, 0, which passes.
    hypothesis_support.run_examples(attempt, 1, item=st.integers(0, 1 << 60))
    with tarfile.open(tmp_path / hypothesis_support.DATABASE) as archive:
        archive.extraction_filter = lambda member, _path: (
            member
        )  # Python 3.11.2 has no argument for it
        archive.extractall(tmp_path)

    monkeypatch.setenv("FLOWMAP_EXAMPLES", str(tmp_path / "examples"))
    with pytest.raises(AssertionError):
        hypothesis_support.run_examples(attempt, 1, item=st.integers(0, 1 << 60))


def test_passing_run_writes_no_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMAP_ARTEFACTS", str(tmp_path))
    hypothesis_support.run_examples(lambda item: None, 5, item=st.booleans())  # noqa: ARG005
    assert list(tmp_path.iterdir()) == []


def test_examples_depend_only_on_seed() -> None:
    assert _tried_examples(3) == _tried_examples(3)
    assert _tried_examples(3) != _tried_examples(4)


@pytest.mark.parametrize(("scale", "count"), [("1", 40), ("3", 40), ("15", 8), ("999", 1)])
def test_examples_reduced_on_slow_kernels(
    monkeypatch: pytest.MonkeyPatch, scale: str, count: int
) -> None:
    monkeypatch.setenv("FLOWMAP_DEADLINE_SCALE", scale)
    assert hypothesis_support.scaled_examples(40) == count


def test_iterations_scale_increases_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _tried_examples(3)
    monkeypatch.setenv("FLOWMAP_EFFORT", "4")
    assert len(_tried_examples(3)) > 2 * len(plain)
