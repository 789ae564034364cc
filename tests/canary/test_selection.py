# SPDX-License-Identifier: GPL-2.0-only
"""Each way to select tests, in real runs: clauses, last failures, one by one, and lists."""

import json
from pathlib import Path

import pytest

from tests.canary.inner_run import FAULTY_TESTS, run_pytest

_USER_SPACE = f"{FAULTY_TESTS}/test_user_space.py"


def _tests(report: Path) -> dict[str, str]:
    """Return the verdict of each test of a run by its name."""
    summary = json.loads((report / "summary.json").read_text())
    return {test["nodeid"].rpartition("::")[2]: test["verdict"] for test in summary["tests"]}


def test_clause_selects_its_tests_and_starts_no_worker(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-n", "2", "--clause", "SN-6", _USER_SPACE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _tests(tmp_path) == {"test_passes": "passed"}
    (test,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert test["worker"] == "main"


def test_lf_and_sw_continue_with_the_failed_test(tmp_path: Path) -> None:
    # A cache of its own: the user's --lf is left alone.
    cache = ("-o", f"cache_dir={tmp_path / 'cache'}")
    selection = (*cache, "-k", "test_passes or test_fails or test_skips", _USER_SPACE)
    done = run_pytest(tmp_path, "-n", "2", "--sw", *selection)
    assert done.returncode == 1, done.stdout + done.stderr
    assert _tests(tmp_path) == {"test_passes": "passed", "test_fails": "failed"}
    run_pytest(tmp_path, "-n", "2", "--sw", *selection)
    assert _tests(tmp_path) == {"test_fails": "failed"}
    run_pytest(tmp_path, "-n", "2", "--lf", *selection)
    assert _tests(tmp_path) == {"test_fails": "failed"}


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--markers"])
def test_listing_boots_no_vm(tmp_path: Path, option: str) -> None:
    done = run_pytest(tmp_path, option, "-n", "2", FAULTY_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "flowmap: " not in done.stderr


@pytest.mark.parametrize(
    "args",
    [(f"{FAULTY_TESTS}/test_no_such_file.py",), (f"{_USER_SPACE}::test_no_such",),
     ("--clause", "SN-999", FAULTY_TESTS)],
    ids=["file", "test", "clause"],
)  # fmt: skip
def test_missing_test_is_one_line_before_any_boot(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, *args)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
