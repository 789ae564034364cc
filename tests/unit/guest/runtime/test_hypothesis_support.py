# SPDX-License-Identifier: GPL-2.0-only
"""Random examples: the same from the same seed, and a failure leaves all that it should."""

import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fixtures.guest.runtime import hypothesis_support


class Counter(RuleBasedStateMachine):
    """Counts, and cannot count to six."""

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
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARTEFACTS", "DEADLINE_SCALE", "EFFORT", "EXAMPLES"):
        monkeypatch.delenv(f"FLOWMAP_{name}", raising=False)


def _tried(seed: int) -> list[int]:
    seen: list[int] = []

    def attempt(item: int) -> None:
        seen.append(item)

    random.seed(seed)
    hypothesis_support.explore(attempt, 20, item=st.integers(0, 1 << 60))
    return seen


def test_shortest_sequence_is_told_as_a_test() -> None:
    random.seed(1)
    with pytest.raises(AssertionError) as failure:
        hypothesis_support.explore_machine(Counter, 100, 20)
    text = failure.value.__notes__[-1]
    assert text.startswith("As a test:\n\nfrom ")
    code = text.removeprefix("As a test:\n\n")
    assert code.count("state.add(by=2)") == 3
    assert "reset" not in code
    # It can be run as it is, and fails as it did.
    scope: dict[str, object] = {}
    exec(code.replace(f"from {Counter.__module__} import Counter", ""), {"Counter": Counter}, scope)
    with pytest.raises(AssertionError):
        scope["test_replayed"]()  # type: ignore[operator]


def test_database_is_among_the_artefacts_and_can_be_fed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(item: int) -> None:
        assert item < 1000

    monkeypatch.setenv("FLOWMAP_ARTEFACTS", str(tmp_path))
    with pytest.raises(AssertionError):
        hypothesis_support.explore(attempt, 50, item=st.integers(0, 1 << 60))
    # One example is 0, the simplest, which passes.
    hypothesis_support.explore(attempt, 1, item=st.integers(0, 1 << 60))
    with tarfile.open(tmp_path / hypothesis_support.DATABASE) as archive:
        archive.extraction_filter = lambda member, _path: member  # Python 3.11.2 knows no other
        archive.extractall(tmp_path)

    monkeypatch.setenv("FLOWMAP_EXAMPLES", str(tmp_path / "examples"))
    with pytest.raises(AssertionError):
        hypothesis_support.explore(attempt, 1, item=st.integers(0, 1 << 60))


def test_nothing_is_left_where_nothing_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWMAP_ARTEFACTS", str(tmp_path))
    hypothesis_support.explore(lambda item: None, 5, item=st.booleans())  # noqa: ARG005
    assert list(tmp_path.iterdir()) == []


def test_seed_decides_the_examples() -> None:
    assert _tried(3) == _tried(3)
    assert _tried(3) != _tried(4)


@pytest.mark.parametrize(("scale", "count"), [("1", 40), ("3", 40), ("15", 8), ("999", 1)])
def test_slow_kernels_try_fewer(monkeypatch: pytest.MonkeyPatch, scale: str, count: int) -> None:
    monkeypatch.setenv("FLOWMAP_DEADLINE_SCALE", scale)
    assert hypothesis_support.affordable(40) == count


def test_effort_is_more_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _tried(3)
    monkeypatch.setenv("FLOWMAP_EFFORT", "4")
    assert len(_tried(3)) > 2 * len(plain)
