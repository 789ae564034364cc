# SPDX-License-Identifier: GPL-2.0-only
"""Selection of tests: checks before any build, clauses, last failures, and number of workers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.pytest_plugin import select_tests
from fixtures.host.pytest_plugin.select_tests import limit_workers, narrows, selected_tests
from fixtures.host.util.errors import UserError
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, FakeLayers, Harness

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

CLAUSED = """
import pytest

@pytest.mark.clause("SN-6.2")
def test_six(): pass

@pytest.mark.clause("SN-6.3", "SN-7.1", "FM-1.1")
def test_seven(): pass

@pytest.mark.clause("MM-1.1")
def test_other(): assert 0
"""


@pytest.fixture
def run(pytester: pytest.Pytester, harness: Harness) -> Run:
    """Function that runs pytest in this process, with its cache, on tests with clauses."""
    (pytester.path / "selftests/test_guest.py").write_text(CLAUSED)
    harness.layers = FakeLayers(
        {
            "selftests/test_guest.py::test_six": ["SN-6.2"],
            "selftests/test_guest.py::test_seven": ["SN-6.3", "SN-7.1", "FM-1.1"],
            "selftests/test_guest.py::test_other": ["MM-1.1"],
        }
    )
    pytester.makeini("[pytest]\nmarkers = clause\n")
    assert harness.events == []

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*PLUGINS[:4], "-v", *args, no_reraise_ctrlc=True)

    return run_pytest


@pytest.mark.parametrize(
    ("clauses", "tests"),
    [(["SN-6.2"], ["test_six"]), (["SN-6"], ["test_seven", "test_six"]),
     (["SN-7"], ["test_seven"]), (["SN"], ["test_seven", "test_six"]),
     (["SN-6.2", "FM-1"], ["test_seven", "test_six"])],
    ids=["sentence", "clause", "other-clause", "group", "two"],
)  # fmt: skip
def test_clause_runs_its_tests_only(
    harness: Harness, run: Run, clauses: list[str], tests: list[str]
) -> None:
    result = run(*(f"--clause={clause}" for clause in clauses), "selftests")
    assert result.ret == 0
    result.assert_outcomes(passed=len(tests), deselected=3 - len(tests))
    ran = sorted(test["nodeid"].rpartition("::")[2] for test in harness.summary()["tests"])
    assert ran == tests


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--clause", "SN-666", "selftests"], "error: --clause SN-666: no such clause in *"),
        (["selftests/test_gest.py"], "error: selftests/test_gest.py: no such file or directory"),
        (["selftests/test_guest.py::test_sevn"],
         "error: selftests/test_guest.py: no test test_sevn: did you mean test_seven?"),
    ],
    ids=["clause", "file", "test"],
)  # fmt: skip
def test_wrong_selection_is_one_line_before_any_set_up(
    harness: Harness, run: Run, args: list[str], line: str
) -> None:
    result = run(*args)
    assert result.ret == 2
    result.stderr.fnmatch_lines([line])
    assert len(result.errlines) == 1
    assert harness.events == []


def test_unknown_parameters_are_refused_before_workers_start(harness: Harness, run: Run) -> None:
    harness.layers = FakeLayers({"selftests/test_guest.py::test_six[udp]": ["SN-6"]})
    result = run("selftests/test_guest.py::test_six[upd]")
    assert result.ret == 2
    result.stderr.fnmatch_lines(["error: *test_six[[]upd]: no such test: did you mean *[[]udp][?]"])


@pytest.mark.parametrize(
    "option", ["--collect-only", "--fixtures", "--markers", "--fixtures-per-test"]
)
def test_listing_sets_nothing_up_and_starts_no_worker(
    harness: Harness, run: Run, option: str
) -> None:
    result = run(option, "-n", "2", "--dist", "worksteal", "selftests")
    assert result.ret == 0
    assert harness.events == []
    result.stdout.no_fnmatch_line("*workers*")


def test_lf_repeats_the_failed_test_only(harness: Harness, run: Run) -> None:
    assert run("selftests").ret == 1
    result = run("--lf", "selftests")
    result.assert_outcomes(failed=1)
    assert len(harness.summary()["tests"]) == 1


def test_sw_stops_at_first_failure_and_continues_there(
    harness: Harness, run: Run, pytester: pytest.Pytester
) -> None:
    tests = pytester.path / "selftests/test_guest.py"
    tests.write_text(CLAUSED + "\ndef test_last(): pass\n")
    result = run("--sw", "-n", "2", "selftests")
    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=1)
    assert harness.summary()["info"]["interrupted"] is False
    tests.write_text(CLAUSED.replace("assert 0", "pass") + "\ndef test_last(): pass\n")
    result = run("--sw", "-n", "2", "selftests")
    assert result.ret == 0
    result.assert_outcomes(passed=2, deselected=2)


def _config(pytester: pytest.Pytester, *args: str) -> pytest.Config:
    root = f"--rootdir={pytester.path}"
    return pytester.parseconfig("-p", "fixtures.host.pytest_plugin.options", root, *args)


COLLECTED = {
    "selftests/lookup/test_hit.py::test_value[udp]": ["LU-1"],
    "selftests/lookup/test_hit.py::test_value[tcp]": ["LU-1"],
    "selftests/lookup/test_hit.py::test_key": ["LU-2"],
    "selftests/snoop/test_teardown.py::test_key": ["SN-1"],
}


@pytest.mark.parametrize(
    ("args", "count"),
    [
        (["selftests"], 4),
        (["."], 4),
        (["/", "selftests/lookup"], 3),
        (["selftests/lookup"], 3),
        (["selftests/lookup/test_hit.py::test_value"], 2),
        (["selftests/lookup/test_hit.py::test_value[udp]"], 1),
        (["selftests", "--clause", "SN"], 1),
        (["selftests", "-k", "udp"], 1),
        (["selftests", "-k", "test_key and not SNOOP"], 1),
        (["selftests", "-k", "skip"], 4),
        (["selftests", "-m", "soak"], 4),
    ],
    ids=[
        "all",
        "root",
        "outside",
        "folder",
        "function",
        "test",
        "clause",
        "word",
        "words",
        "marker-word",
        "marker",
    ],
)
def test_selected_tests_are_counted_without_collecting(
    pytester: pytest.Pytester, args: list[str], count: int
) -> None:
    pytester.mkpydir("selftests").joinpath("lookup").mkdir()
    file = pytester.path / "selftests/lookup/test_hit.py"
    file.write_text("@pytest.mark.skipif(False)")
    assert len(selected_tests(_config(pytester, *args), COLLECTED)) == count


def test_clause_that_no_selected_test_covers_is_refused(pytester: pytest.Pytester) -> None:
    with pytest.raises(UserError, match="none of the tests covers it"):
        selected_tests(_config(pytester, "selftests/lookup", "--clause", "SN-1"), COLLECTED)


@pytest.mark.parametrize(
    ("options", "tests", "workers"),
    [
        ({"numprocesses": "auto", "dist": "worksteal"}, 1, 0),
        ({"numprocesses": "auto", "dist": "worksteal"}, 2, 2),
        ({"numprocesses": "auto", "dist": "worksteal"}, 800, 4),
        ({"numprocesses": 2, "dist": "load"}, 1, 0),
        ({"numprocesses": 2, "dist": "each"}, 1, 2),
        ({"numprocesses": None, "dist": "no"}, 1, None),
        ({"numprocesses": "auto", "dist": "worksteal", "stepwise": True}, 800, 0),
    ],
    ids=["auto-one", "auto-two", "auto-many", "two-one", "each", "tx", "stepwise"],
)
def test_workers_are_no_more_than_tests(
    options: dict[str, Any], tests: int, workers: int | None
) -> None:
    config = SimpleNamespace(
        option=SimpleNamespace(**options),
        getoption=options.get,
        hook=SimpleNamespace(pytest_xdist_auto_num_workers=lambda config: 4),  # noqa: ARG005
    )
    limit_workers(cast(pytest.Config, config), tests)
    assert config.option.numprocesses == workers


def test_every_listing_option_exists(pytester: pytest.Pytester) -> None:
    option = pytester.parseconfig().option
    assert all(hasattr(option, name) for name in select_tests._LISTING_OPTIONS)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], False), (["-n", "8"], False), (["selftests"], True), (["-k", "netns"], True),
        (["-m", "clause"], True), (["--clause", "SN"], True), (["--lf"], True), (["--sw"], True),
        (["--affected"], True),
    ],
)  # fmt: skip
def test_memory_of_all_workers_is_required_at_once_for_the_whole_suite_only(
    pytester: pytest.Pytester, args: list[str], expected: bool
) -> None:
    pytester.mkpydir("selftests")
    config = _config(pytester, "-o", "testpaths=selftests", *args)
    assert narrows(config) is expected
