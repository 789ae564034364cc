# SPDX-License-Identifier: GPL-2.0-only
"""Reports on runs of the same inputs differ in times only, in every file."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.model.results import Run
from fixtures.host.report.report_writer import write_all
from tests.unit.host.report import run_samples

_TIMES = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)"  # when
    r"|\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    r"|\b\d+ h \d\d min\b|\b\d+ min \d\d s\b|\b\d+\.\d+ s\b"  # how long, for people
    r'|(?<=time=")[\d.]+(?=")|(?<="seconds": )[\d.]+|(?<="duration": )[\d.]+'  # for programs
    r'|(?<="setup": )[\d.]+|(?<="call": )[\d.]+'
)


def _again(run: Run, seed: int) -> Run:
    """Return the run with other times, workers and order."""
    tests = [
        replace(
            test,
            seconds=test.seconds * (seed + 1) + 0.01,
            phases={"setup": 0.5 * seed + 0.1, "call": 0.25 * seed + 0.2},
            worker=f"gw{(at + seed) % 4}",
        )
        for at, test in enumerate(run.tests)
    ]
    day = f"2026-02-{seed:02}T10:00:"
    info = replace(run.info, started=f"{day}00Z", finished=f"{day}59Z", seconds=59.5 + seed)
    return Run(info, tuple(tests[seed:] + tests[:seed]))


def _without_times(text: str) -> str:
    # The table of the slowest tests is ordered by time.
    text = re.sub(r'<section id="slowest">.*?</section>', "", text, flags=re.DOTALL)
    text = re.sub(r'"worker": "gw\d"', '"worker": ""', text)
    return _TIMES.sub("TIME", text)


@pytest.mark.parametrize("number", [1, 2])
def test_reports_on_the_same_inputs_differ_in_times_only(tmp_path: Path, number: int) -> None:
    contract = run_samples.contract(tmp_path)
    runs = [
        run_samples.large(1),
        Run(run_samples.info(profile="debug"), run_samples.large(2).tests),
    ][:number]
    for name, seed in (("a", 3), ("b", 5)):
        write_all([_again(run, seed) for run in runs], tmp_path / name, contract)
    for path in sorted((tmp_path / "a").iterdir()):
        one, other = path.read_text(), (tmp_path / "b" / path.name).read_text()
        assert one != other, f"{path.name} shows no times at all"
        assert _without_times(one) == _without_times(other), path.name


def test_difference_other_than_time_is_detected(tmp_path: Path) -> None:
    run = run_samples.large(1)
    other = Run(run.info, (*run.tests[1:], replace(run.tests[0], seed=7)))
    for name, what in (("a", run), ("b", other)):
        write_all([what], tmp_path / name, run_samples.contract(tmp_path))
    for name in ("summary.json", "report.html", "junit.xml"):
        texts = [_without_times((tmp_path / side / name).read_text()) for side in "ab"]
        assert texts[0] != texts[1]
