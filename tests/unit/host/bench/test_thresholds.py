# SPDX-License-Identifier: GPL-2.0-only
"""Performance goals: which measurements are compared, and when a goal is met."""

from typing import Any

import pytest

from fixtures.host.bench.markdown_table import (
    format_number,
    goal_table,
    markdown,
    measurement_table,
)
from fixtures.host.bench.thresholds import evaluate_goals
from fixtures.host.model.bench_results import (
    HARNESS_PROFILE,
    INSTRUCTIONS,
    TIME,
    UNPATCHED_PROFILE,
    FailedMeasurement,
    Measurement,
)
from tests.unit.host.bench.bench_samples import make_bench_results, make_measurement


def _lookups(own: float) -> list[Measurement]:
    return [
        make_measurement("lookup", own, by="flow map"),
        make_measurement("lookup", 200.0, by="kfunc"),
        make_measurement("lookup", 100.0, by="plain hash"),
    ]


@pytest.mark.parametrize(
    ("own", "met"), [(100.0, [True, True]), (140.0, [True, False]), (141.0, [False, False])]
)
def test_lookup_goals(own: float, met: list[bool]) -> None:
    found = evaluate_goals(make_bench_results(_lookups(own)))
    assert [goal.met for goal in found] == met
    assert [goal.limit for goal in found] == [0.7, 1.0]


def test_lookup_among_two_source_tables_is_compared_with_one() -> None:
    found = evaluate_goals(
        make_bench_results(
            [
                make_measurement("lookup", 100.0, by="flow map"),
                make_measurement("lookup, source tables", 141.0, tables=2),
            ]
        )
    )
    assert [(goal.value, goal.limit, goal.met) for goal in found] == [(1.41, 1.4, False)]


def test_flow_add_del_is_compared_with_unpatched_kernel() -> None:
    found = evaluate_goals(
        make_bench_results(
            [
                make_measurement("add", 882.0, tables=0, of="snoop table"),
                make_measurement("add", 1000.0, tables=1, of="snoop table"),
                make_measurement("add", 1311.0, tables=1, of="flow map"),
                make_measurement("add", 1300.0, tables=32, of="snoop table"),
                make_measurement(
                    "add", 874.0, tables=0, of="snoop table", profile=UNPATCHED_PROFILE
                ),
            ]
        )
    )
    assert [(round(goal.value, 3), goal.limit, goal.met) for goal in found] == [
        (1.009, 1.01, True),
        (1.144, 1.4, True),
        (1.5, 1.4, False),
        (1.3, 1.3, True),
    ]


def test_removal_has_a_lower_limit_than_addition() -> None:
    found = evaluate_goals(
        make_bench_results(
            [
                make_measurement("remove", 1111.0, tables=1, of="flow map"),
                make_measurement(
                    "remove", 1000.0, tables=0, of="snoop table", profile=UNPATCHED_PROFILE
                ),
            ]
        )
    )
    assert [(goal.limit, goal.met) for goal in found] == [(1.1, False)]


def test_free_for_each_flow_is_compared_between_flow_counts() -> None:
    cost = {1_000: 100.0, 100_000: 110.0}
    (goal,) = evaluate_goals(
        make_bench_results(
            [make_measurement("free at size", cost[size], flows=size) for size in cost]
        )
    )
    assert goal.met
    assert "100,000 flows / 1,000" in goal.text


@pytest.mark.parametrize(("own", "met"), [(1.62, True), (1.61, False)])
def test_two_cpus_are_compared_with_the_unpatched_kernel(own: float, met: bool) -> None:
    name, unit = "two CPUs / one", "times"
    (goal,) = evaluate_goals(
        make_bench_results(
            [
                make_measurement(name, own, machine=TIME, unit=unit, of="flow map"),
                make_measurement(name, 1.0, machine=TIME, unit=unit, of="nothing"),
                make_measurement(
                    name, 1.8, machine=TIME, unit=unit, of="nothing", profile=UNPATCHED_PROFILE
                ),
            ]
        )
    )
    assert (goal.met, goal.limit_text) == (met, "≥ 0.9")


def test_delay_has_an_absolute_limit_except_for_the_background() -> None:
    found = evaluate_goals(
        make_bench_results(
            [
                make_measurement("longest delay", delay, during=during, flows=1_000_000)
                for during, delay in (("nothing", 5e6), ("publish", 1e6), ("free", 1_000_001.0))
            ]
        )
    )
    assert [goal.met for goal in found] == [True, False]
    table = goal_table(found)
    assert "1,000,000 flows: publish (instructions) | 1,000,000 | 1,000,000 | ≤ 1,000,000 |" in (
        table
    )


@pytest.mark.parametrize(("octets", "met"), [(400, True), (408, False)])
def test_memory_of_an_entry_has_an_absolute_limit(octets: float, met: bool) -> None:
    (goal,) = evaluate_goals(
        make_bench_results(
            [
                make_measurement("slab object", 320.0, unit="octets", cache="flow_offload"),
                make_measurement("slab object", octets, unit="octets", cache="nf_flow_snoop"),
            ]
        )
    )
    assert goal.met is met
    assert goal.text.endswith("(octets)")


def test_commit_of_many_snoop_tables_is_compared_with_one() -> None:
    cost = {1: 100.0, 64: 301.0}
    (goal,) = evaluate_goals(
        make_bench_results(
            [
                *(
                    make_measurement("commit", cost[tables], of="snoop table", tables=tables)
                    for tables in cost
                ),
                make_measurement("commit", 9e9, of="ordinary flowtable", tables=64),
            ]
        )
    )
    assert (goal.value, goal.met) == (3.01, False)
    assert "64 tables / 1" in goal.text


def test_scaling_goal_compares_largest_with_smallest() -> None:
    cost = {100_000: 180.0, 10_000: 500.0, 1_000: 90.0}
    (goal,) = evaluate_goals(
        make_bench_results(
            [make_measurement("lookup at size", cost[size], flows=size) for size in cost]
        )
    )
    assert "100,000 flows / 1,000" in goal.text
    assert goal.value == 2.0
    assert goal.met


def test_forwarding_has_a_goal_for_each_packet_size() -> None:
    def costs(octets: int, nft: float, own: float) -> list[Measurement]:
        case: dict[str, Any] = {"octets": octets, "flows": 1, "nat": ""}
        return [
            make_measurement("forward", nft, by="nft flowtable", **case),
            make_measurement("forward", own, by="flow map", **case),
        ]

    found = evaluate_goals(
        make_bench_results(costs(64, 4000.0, 2000.0) + costs(1400, 4000.0, 2001.0))
    )
    assert [goal.met for goal in found] == [True, False]
    assert "64 octets" in found[0].text


def test_missing_measurement_has_no_goal_and_no_table() -> None:
    assert (
        evaluate_goals(make_bench_results([make_measurement("lookup", 1.0, by="flow map")])) == []
    )
    assert goal_table([]) == ""


def test_markdown_has_kernel_accelerator_goals_and_missing() -> None:
    lost = FailedMeasurement(
        part="mirror", profile="unpatched", machine=INSTRUCTIONS, measurement="m", why="panic"
    )
    page = markdown(make_bench_results(_lookups(201.0), [lost]))
    for part in ("bench 7.3.4 (abc)", "Time by tcg", "| **no** |", "≤ 0.7", "panic"):
        assert part in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {6}


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (0.5, "0.5")]
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert format_number(value) == text


def test_figure_table_has_cases_and_packet_rate() -> None:
    case: dict[str, Any] = {"by": "nft flowtable", "octets": 64, "flows": 1000, "nat": ""}
    text = measurement_table([make_measurement("forward", 2000.0, machine=TIME, **case)])
    assert "by nft flowtable, octets 64, flows 1,000 |" in text
    assert "500,000 packets/s" in text


def test_harness_is_compared_with_vng_and_with_one_worker() -> None:
    found = evaluate_goals(
        make_bench_results(
            [
                make_measurement(
                    "first line", 0.3e9, machine=TIME, profile=HARNESS_PROFILE, how="restored"
                ),
                make_measurement(
                    "first line", 6e9, machine=TIME, profile=HARNESS_PROFILE, how="vng --exec true"
                ),
                make_measurement(
                    "run of snoop's tests", 160e9, machine=TIME, profile=HARNESS_PROFILE, workers=1
                ),
                make_measurement(
                    "run of snoop's tests", 101e9, machine=TIME, profile=HARNESS_PROFILE, workers=2
                ),
            ]
        )
    )
    assert [(round(goal.value, 2), goal.met) for goal in found] == [(0.05, True), (1.58, False)]
