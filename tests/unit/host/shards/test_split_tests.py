# SPDX-License-Identifier: GPL-2.0-only
"""Tests are split into shards by their recorded durations."""

from hypothesis import given
from hypothesis import strategies as st

from fixtures.host.shards.split_tests import split


def test_shards_take_about_the_same_time() -> None:
    tests = [f"f{file}.py::t{number}" for file in range(8) for number in range(4)]
    seconds = {test: 9.0 if test.startswith("f0") else 1.0 for test in tests}
    loads = [sum(seconds[test] for test in shard) for shard in split(tests, seconds, 2)]
    assert max(loads) - min(loads) <= 4


def test_tests_of_a_file_stay_together_and_in_order() -> None:
    tests = [f"f{file}.py::t{number}" for number in range(3) for file in range(8)]
    for shard in split(tests, {}, 2):
        files = {test.partition("::")[0] for test in shard}
        assert len(shard) == 3 * len(files)
        assert shard == [test for test in tests if test in shard]


def test_test_without_a_duration_takes_the_median() -> None:
    tests = ["a.py::a", "b.py::b", "c.py::c", "d.py::new"]
    first, second = split(tests, {"a.py::a": 10.0, "b.py::b": 30.0, "c.py::c": 20.0}, 2)
    assert sorted(map(sorted, (first, second))) == [
        ["a.py::a", "b.py::b"],
        ["c.py::c", "d.py::new"],
    ]


@given(
    st.lists(st.builds("f{}.py::t{}".format, st.integers(0, 5), st.integers(0, 30)), unique=True),
    st.integers(1, 6),
    st.floats(0, 1e6),
)
def test_each_test_is_in_one_shard(tests: list[str], count: int, first: float) -> None:
    shards = split(tests, {tests[0]: first} if tests else {}, count)
    assert sorted(test for shard in shards for test in shard) == sorted(tests)
    assert all(shards)
    assert len(shards) <= count
