# SPDX-License-Identifier: GPL-2.0-only
"""Test prioritization: tests that killed nearby mutants run first."""

from fixtures.host.model.mutation_results import BOOT, MutantResult, MutantStatus
from fixtures.host.mutation.kill_history import KillHistory

PLACE = "net/a.c:100"


def killed(test: str, place: str) -> MutantResult:
    return MutantResult("a-bug", MutantStatus.KILLED, test=test, place=place)


def test_killers_are_sorted_by_distance_without_duplicates() -> None:
    history = KillHistory(
        [
            killed("far", "net/a.c:300"),
            killed("near", "net/a.c:90"),
            killed("far", "net/a.c:400"),
            killed("elsewhere", "net/b.c:100"),
        ]
    )
    assert history.likely_killers(PLACE) == ["near", "far"]
    history.add(killed("nearest", "net/a.c:101"))
    assert history.likely_killers(PLACE) == ["nearest", "near", "far"]


def test_number_of_tests_is_limited() -> None:
    history = KillHistory(killed(f"t{at}", f"net/a.c:{100 + at}") for at in range(20))
    assert history.likely_killers(PLACE) == [f"t{at}" for at in range(8)]


def test_survivors_boot_kills_and_unknown_lines_are_ignored() -> None:
    known = [
        MutantResult("a-bug", MutantStatus.SURVIVED, place="net/a.c:100"),
        killed(BOOT, "net/a.c:100"),
        killed("old", ""),
    ]
    assert KillHistory(known).likely_killers(PLACE) == []
