# SPDX-License-Identifier: GPL-2.0-only
"""Test prioritization: tests that killed nearby mutants run first."""

from pathlib import Path

from fixtures.host.model.mutation_results import BOOT, Fate, Result
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.mutation.test_prioritization import Witnesses

MUTANT = Mutant(Path("bug.patch"), "wrong", "", ("SN",), "own", 2, "base", place="net/a.c:100")


def killed(test: str, place: str) -> Result:
    return Result("a-bug", Fate.KILLED, test=test, place=place)


def test_killers_are_sorted_by_distance_without_duplicates() -> None:
    history = Witnesses(
        [
            killed("far", "net/a.c:300"),
            killed("near", "net/a.c:90"),
            killed("far", "net/a.c:400"),
            killed("elsewhere", "net/b.c:100"),
        ]
    )
    assert history.of(MUTANT) == ["near", "far"]
    history.learn(killed("nearest", "net/a.c:101"))
    assert history.of(MUTANT) == ["nearest", "near", "far"]


def test_number_of_tests_is_limited() -> None:
    history = Witnesses(killed(f"t{at}", f"net/a.c:{100 + at}") for at in range(20))
    assert history.of(MUTANT) == [f"t{at}" for at in range(8)]


def test_survivors_boot_kills_and_unknown_lines_are_ignored() -> None:
    known = [
        Result("a-bug", Fate.SURVIVED, place="net/a.c:100"),
        killed(BOOT, "net/a.c:100"),
        killed("old", ""),
    ]
    assert Witnesses(known).of(MUTANT) == []
