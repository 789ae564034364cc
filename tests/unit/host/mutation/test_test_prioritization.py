# SPDX-License-Identifier: GPL-2.0-only
"""Which tests are asked first about a seeded bug."""

from pathlib import Path

from fixtures.host.model.mutation_results import BOOT, Fate, Result
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.mutation.test_prioritization import Witnesses

BUG = Mutant(Path("bug.patch"), "wrong", "", ("SN",), "own", 2, "base", place="net/a.c:100")


def killed(test: str, place: str) -> Result:
    return Result("a-bug", Fate.KILLED, test=test, place=place)


def test_who_noticed_the_nearest_bugs_comes_first_and_once() -> None:
    witnesses = Witnesses(
        [
            killed("far", "net/a.c:300"),
            killed("near", "net/a.c:90"),
            killed("far", "net/a.c:400"),
            killed("elsewhere", "net/b.c:100"),
        ]
    )
    assert witnesses.of(BUG) == ["near", "far"]
    witnesses.learn(killed("nearest", "net/a.c:101"))
    assert witnesses.of(BUG) == ["nearest", "near", "far"]


def test_there_are_few_of_them() -> None:
    every = Witnesses(killed(f"t{at}", f"net/a.c:{100 + at}") for at in range(20))
    assert every.of(BUG) == [f"t{at}" for at in range(8)]


def test_nobody_is_a_witness_of_what_was_not_noticed_or_is_nowhere() -> None:
    known = [
        Result("a-bug", Fate.SURVIVED, place="net/a.c:100"),
        killed(BOOT, "net/a.c:100"),
        killed("old", ""),
    ]
    assert Witnesses(known).of(BUG) == []
