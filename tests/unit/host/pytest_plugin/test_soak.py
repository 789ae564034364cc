# SPDX-License-Identifier: GPL-2.0-only
"""Repeating with new seeds: how long, from which seeds, and what stops it."""

import argparse
from collections.abc import Callable
from itertools import islice

import pytest

from fixtures.host.pytest_plugin import soak

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.mark.campaign
@pytest.mark.parametrize("way", [1, 2])
def test_repeated(way): pass

@pytest.mark.campaign
def test_repeated_too(): pass

def test_once(): pass
"""


class Clock:
    """Shows a second more each time that something has run."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def run(self, fails: Callable[[int], bool] = lambda _: False) -> Callable[[int], bool]:
        """Return a test that takes a second; what it gives is whether it failed."""

        def once(seed: int) -> bool:
            self.now += 1
            return fails(seed)

        return once


def test_without_time_it_runs_once() -> None:
    clock = Clock()
    assert soak.repeat(clock.run(), bool, 0, 7, clock) == soak.Repeated(False, 1)


def test_it_is_repeated_until_the_time_is_over() -> None:
    clock = Clock()
    assert soak.repeat(clock.run(), bool, 4.5, 7, clock).times == 5


def test_every_repetition_has_another_seed() -> None:
    clock, seen = Clock(), []

    def once(seed: int) -> bool:
        clock.now += 1
        seen.append(seed)
        return False

    soak.repeat(once, bool, 50, None, clock)
    assert len(set(seen)) == len(seen) == 50


def test_the_first_failure_ends_it_and_is_what_is_told() -> None:
    clock = Clock()
    third = list(islice(soak.seeds(7), 3))[-1]
    outcome = soak.repeat(clock.run(lambda seed: seed == third), bool, 100, 7, clock)
    assert outcome == soak.Repeated(True, 3)


def test_a_given_seed_comes_first_and_decides_the_others() -> None:
    one, again = (list(islice(soak.seeds(7), 20)) for _ in range(2))
    assert one == again
    assert one[0] == 7
    assert list(islice(soak.seeds(8), 20))[1:] != one[1:]


def test_without_a_seed_no_two_campaigns_are_alike() -> None:
    assert next(soak.seeds(None)) != next(soak.seeds(None))


@pytest.mark.parametrize(
    ("tests", "workers", "each"), [(1, 1, 600), (1, 2, 600), (2, 2, 600), (3, 2, 300), (3, 1, 200)]
)
def test_the_minutes_are_those_of_the_whole_campaign(tests: int, workers: int, each: int) -> None:
    assert soak.share(10, tests, workers) == each


def test_only_marked_tests_share_the_time(pytester: pytest.Pytester) -> None:
    items = {item.name: item for item in pytester.getitems(TESTS)}
    session = next(iter(items.values())).session
    session.items = list(items.values())
    assert soak.share_of(items["test_once"], 6, 1) == 0
    assert soak.share_of(items["test_repeated[1]"], 6, 1) == 120
    assert soak.share_of(items["test_repeated_too"], None, 1) == 0


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_minutes_are_a_positive_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        soak.minutes(text)
    assert soak.minutes("0.5") == 0.5
