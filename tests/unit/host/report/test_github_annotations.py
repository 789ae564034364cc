# SPDX-License-Identifier: GPL-2.0-only
"""Annotations for GitHub Actions."""

from dataclasses import replace

from fixtures.host.model.results import Verdict
from fixtures.host.report.github_annotations import MAX_ANNOTATIONS, render
from tests.unit.host.report.run_samples import result, run

FAILED = replace(
    result(),
    nodeid="selftests/lookup/test_hit.py::test_hit[ipv4,udp]",
    verdict=Verdict.FAILED,
    outcome="failed",
    message="E   assert 50% == 1\n::error::injected",
    replay="tox -e vm -- --seed 7 selftests/lookup/test_hit.py",
)


def test_passed_run_has_no_annotation() -> None:
    assert render([run(result())]) == ""


def test_failure_is_one_line_with_file_verdict_and_replay_command() -> None:
    (line,) = render([run(result(), FAILED)]).splitlines()
    assert line.startswith("::error file=selftests/lookup/test_hit.py,title=failed%3A test_hit")
    assert "[ipv4%2Cudp]" in line
    assert "assert 50%25 == 1%0Atox -e vm -- --seed 7" in line


def test_no_more_than_github_shows() -> None:
    tests = [replace(FAILED, nodeid=f"selftests/lookup/test_a.py::test_{n}") for n in range(13)]
    lines = render([run(*tests)]).splitlines()
    assert len(lines) == MAX_ANNOTATIONS + 1
    assert lines[-1] == "::notice::3 more failed tests are in the report"
