# SPDX-License-Identifier: GPL-2.0-only
"""Repeating tests with new seeds: duration, seeds, and end at the first failure."""

import argparse
from collections.abc import Callable
from itertools import islice

import pytest

from fixtures.host.pytest_plugin import soak

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.mark.soak
@pytest.mark.parametrize("way", [1, 2])
def test_repeated(way): pass

@pytest.mark.soak
def test_repeated_too(): pass

def test_once(): pass
"""


class Clock:
    """A clock that advances one second with each repetition."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def run(self, fails: Callable[[int], bool] = lambda _: False) -> Callable[[int], bool]:
        """Return a test that takes one second and returns whether it failed."""

        def once(seed: int) -> bool:
            self.now += 1
            return fails(seed)

        return once


def test_repeat_without_time_runs_once() -> None:
    clock = Clock()
    assert soak.repeat(clock.run(), bool, 0, 7, clock) == soak.RepeatResult(False, 1)


def test_repeat_ends_when_time_is_over() -> None:
    clock = Clock()
    assert soak.repeat(clock.run(), bool, 4.5, 7, clock).count == 5


def test_repeat_uses_new_seed_each_time() -> None:
    clock, seen = Clock(), []

    def once(seed: int) -> bool:
        clock.now += 1
        seen.append(seed)
        return False

    soak.repeat(once, bool, 50, None, clock)
    assert len(set(seen)) == len(seen) == 50


def test_repeat_ends_at_first_failure() -> None:
    clock = Clock()
    third = list(islice(soak.generate_seeds(7), 3))[-1]
    outcome = soak.repeat(clock.run(lambda seed: seed == third), bool, 100, 7, clock)
    assert outcome == soak.RepeatResult(True, 3)


def test_given_seed_comes_first_and_determines_others() -> None:
    one, again = (list(islice(soak.generate_seeds(7), 20)) for _ in range(2))
    assert one == again
    assert one[0] == 7
    assert list(islice(soak.generate_seeds(8), 20))[1:] != one[1:]


def test_seeds_without_first_seed_are_random() -> None:
    assert next(soak.generate_seeds(None)) != next(soak.generate_seeds(None))


@pytest.mark.parametrize(
    ("tests", "workers", "each"), [(1, 1, 600), (1, 2, 600), (2, 2, 600), (3, 2, 300), (3, 1, 200)]
)
def test_time_is_divided_among_tests_and_workers(tests: int, workers: int, each: int) -> None:
    assert soak.seconds_per_test(10, tests, workers) == each


def test_only_marked_tests_are_repeated(pytester: pytest.Pytester) -> None:
    items = {item.name: item for item in pytester.getitems(TESTS)}
    session = next(iter(items.values())).session
    session.items = list(items.values())
    assert soak.repetition_seconds(items["test_once"], 6, 1) == 0
    assert soak.repetition_seconds(items["test_repeated[1]"], 6, 1) == 120
    assert soak.repetition_seconds(items["test_repeated_too"], None, 1) == 0


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_minutes_must_be_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        soak.parse_minutes(text)
    assert soak.parse_minutes("0.5") == 0.5
