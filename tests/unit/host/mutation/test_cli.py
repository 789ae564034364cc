# SPDX-License-Identifier: GPL-2.0-only
"""``tox -e mutants``: which results need work, and errors for bad input."""

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.model.mutation_results import MutantResult, MutantStatus
from fixtures.host.mutation.build_mutants_json import make_results
from fixtures.host.mutation.cli import format_result, is_expected, main
from tests.unit.host.mutation.mutation_samples import KILLED, SURVIVED, make_mutant


def test_survivor_without_reason_needs_work(tmp_path: Path) -> None:
    assert is_expected(make_mutant(tmp_path), KILLED)
    assert not is_expected(make_mutant(tmp_path), SURVIVED)
    assert is_expected(make_mutant(tmp_path, survives="Equal."), SURVIVED)
    for fate in (MutantStatus.BUILD_FAILED, MutantStatus.INCONCLUSIVE):
        assert not is_expected(
            make_mutant(tmp_path, survives="Equal."), MutantResult("a-bug", fate)
        )
    assert format_result(make_mutant(tmp_path), SURVIVED).startswith("NOT OK survived")


def test_generated_mutant_need_not_compile(tmp_path: Path) -> None:
    unbuilt = MutantResult(
        "a-bug", MutantStatus.BUILD_FAILED, message="x.c:7: error: expected expression"
    )
    generated = replace(make_mutant(tmp_path), kind="mechanical swap")
    assert is_expected(generated, unbuilt)
    results = make_results([(generated, unbuilt), (make_mutant(tmp_path), KILLED)], "ab" * 32)
    assert results.ok
    assert results.headline.endswith("1 did not compile")
    assert not make_results([(make_mutant(tmp_path), unbuilt)], "ab" * 32).ok


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--generate", "0"], "--generate 0"),
        (["--generate", "9-2"], "--generate 9-2"),
        (["--generate", "few"], "--generate few"),
        (["--folder", "nowhere"], "no patches"),
        (["--only", "nothing-like-it"], "--only nothing-like-it"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_old_option_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--again", "--mechanical", "0"]) == 2
    assert "error: --generate 0" in capsys.readouterr().err
