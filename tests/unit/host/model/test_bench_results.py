# SPDX-License-Identifier: GPL-2.0-only
"""Benchmark results: medians, quartiles, and bench.json."""

import json
from pathlib import Path

import pytest

from fixtures.host.model.bench_results import (
    INSTRUCTIONS,
    TIME,
    BenchResults,
    FailedMeasurement,
    load,
    measurements_from_report,
)
from fixtures.host.util.errors import UserError
from tests.unit.host.bench.bench_samples import make_bench_results, make_measurement


def test_median_and_quartiles() -> None:
    found = make_measurement("lookup", 5.0, 1.0, 3.0, 2.0, 4.0)
    assert found.median == 3.0
    assert found.quartiles == (2.0, 4.0)
    assert make_measurement("lookup", 7.0).quartiles == (7.0, 7.0)


def test_measurement_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        make_measurement("lookup")


@pytest.mark.parametrize(
    ("machine", "unit", "measure"),
    [(INSTRUCTIONS, "time", "instructions"), (TIME, "time", "ns"), (TIME, "octets", "octets")],
    ids=["icount", "wall-clock", "other-unit"],
)
def test_unit_depends_on_the_clock_of_the_vm(machine: str, unit: str, measure: str) -> None:
    assert make_measurement("lookup", 1.0, machine=machine, unit=unit).unit_text == measure


def test_json_round_trips_and_has_medians() -> None:
    lost = FailedMeasurement(
        part="size", profile="base", machine=TIME, measurement="m", why="no memory"
    )
    run = make_bench_results([make_measurement("lookup", 1.0, 2.0, 4.0, by="flow map")], [lost])
    text = run.to_json()
    assert json.loads(text)["figures"][0]["median"] == 2.0
    assert BenchResults.from_json(text) == run


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"schema": 99}', '{"schema": 1, "figures": [{"samples": ["x"]}], "missing": []}'],
    ids=["empty", "no-fields", "later-version", "no-name"],
)
def test_malformed_file_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^bench\.json: .*"):
        BenchResults.from_json(text)


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `tox -e bench` first"):
        load(tmp_path / "bench.json")


def test_measurements_are_read_from_properties_of_a_report() -> None:
    sent = {"name": "add", "samples": [3, 4], "unit": "time", "case": {"tables": 1}}
    found = measurements_from_report([["other", 1], ["figure", sent]], "unpatched", INSTRUCTIONS)
    assert found == (make_measurement("add", 3, 4, profile="unpatched", tables=1),)


def test_find_matches_name_clock_profile_and_part_of_the_case() -> None:
    own = make_measurement("add", 1.0, tables=1, of="flow map")
    run = make_bench_results([make_measurement("add", 2.0, tables=0, of="flow map"), own])
    assert run.find("add", INSTRUCTIONS, tables=1) is own
    assert run.find("add", TIME, tables=1) is None
    assert run.find("add", INSTRUCTIONS, "unpatched", tables=1) is None
    assert run.find("add", INSTRUCTIONS, tables=4) is None
