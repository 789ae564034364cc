# SPDX-License-Identifier: GPL-2.0-only
"""The hooks of the host's pytest plugin, in pytest runs with fakes for kernel and VMs."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fixtures.host.model.results import Verdict
from fixtures.host.mutation import mutant
from fixtures.host.pytest_plugin import inputs_and_history, no_vm_run_setup
from fixtures.host.util.errors import InfraError, KernelError, UserError
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, FakeLayers, Harness

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Function that runs pytest in this process."""

    def run_pytest(*args: str, path: str = "selftests") -> pytest.RunResult:
        return pytester.runpytest_inprocess(*PLUGINS, *args, path, no_reraise_ctrlc=True)

    return run_pytest


def test_run_with_failed_test_exits_1_and_writes_report(harness: Harness, run: Run) -> None:
    result = run()
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    summary = harness.summary()
    verdicts = {test["nodeid"]: test["verdict"] for test in summary["tests"]}
    assert verdicts == {
        "selftests/test_guest.py::test_fails": "failed",
        "selftests/test_guest.py::test_passes": "passed",
    }
    assert summary["info"]["kernel_release"] == "7.3.4"
    assert (harness.context.report / "report.html").exists()


def test_verdict_is_printed_with_path_of_report(harness: Harness, run: Run) -> None:
    result = run("-k", "passes")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"PASSED: *{harness.context.report}/report.html"])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no such profile"), 2, "error: no such profile"),
        (KernelError("kernel splat before any test: BUG"), 1, "error: kernel splat before *"),
        (InfraError("the console is closed"), 3, "error: the harness failed: the console is *"),
        (OSError(28, "No space left on device", "/x"), 2, "error: /x: No space left on device: *"),
        (KeyboardInterrupt(), 2, "interrupted before the first test"),
    ],
    ids=["user-error", "kernel-error", "infra-error", "os-error", "ctrl-c"],
)
def test_error_during_set_up_is_one_line_and_exit_status(
    harness: Harness, run: Run, error: BaseException, status: int, line: str
) -> None:
    harness.set_up_error = error
    before = signal.getsignal(signal.SIGTERM)
    result = run()
    assert result.ret == status
    result.stderr.fnmatch_lines([line])
    assert len(result.errlines) == 1
    assert harness.events == ["run directory made", "run directory removed"]
    assert not harness.context.report.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_kernel_without_series_exits_1_and_names_features(harness: Harness, run: Run) -> None:
    harness.layers = FakeLayers(missing=["BPF_MAP_TYPE_FLOWMAP"])
    result = run()
    assert result.ret == 1
    result.stderr.fnmatch_lines(
        ["error: kernel 7.3.4 (profile base) *", "  - BPF_MAP_TYPE_FLOWMAP"]
    )
    assert not harness.context.report.exists()


def test_baseline_kernel_with_series_exits_2(harness: Harness, run: Run) -> None:
    harness.context = replace(harness.context, baseline=harness.context)
    result = run()
    assert result.ret == 2
    result.stderr.fnmatch_lines(["error: baseline kernel 7.3.4 (profile base) has the series*"])


def test_clause_without_test_exits_2(harness: Harness, run: Run) -> None:
    harness.gaps = ["docs/contract.md: clause FM-1 has no test"]
    result = run()
    assert result.ret == 2
    result.stderr.fnmatch_lines(["error: docs/contract.md: clause FM-1 has no test"])


def test_guest_tests_without_selection_are_not_collected(harness: Harness, run: Run) -> None:
    result = run(path=".")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*test_guest.py*")
    assert harness.events == []


def test_collect_only_lists_guest_tests_without_vm(harness: Harness, run: Run) -> None:
    result = run("--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["selftests/test_guest.py::test_passes"])
    assert harness.events == []


@pytest.mark.parametrize("option", ["--fixtures", "--fixtures-per-test", "--markers", "--version"])
def test_listing_builds_and_boots_nothing(harness: Harness, run: Run, option: str) -> None:
    result = run(option)
    assert result.ret == 0
    assert harness.events == []
    result.stderr.no_fnmatch_line("flowmap:*")


def test_native_runs_guest_tests_in_this_process(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(no_vm_run_setup, "prepare_native_run", lambda _config: None)
    result = run("--native")
    result.assert_outcomes(passed=1, failed=1)
    assert harness.events == []
    assert not harness.context.report.exists()


@pytest.mark.usefixtures("harness")
def test_native_that_cannot_be_prepared_exits_2(run: Run) -> None:
    result = run("--native", "--soak", "1")
    assert result.ret == 2
    result.stderr.fnmatch_lines(["error: --soak restores a VM for each repetition*"])


@pytest.mark.parametrize("verdict", ["panic", "splat", "hang", "lost", "flaky", "infra"])
def test_kernel_verdict_is_shown_by_name_and_letter(
    harness: Harness, run: Run, verdict: str
) -> None:
    harness.verdicts["test_passes"] = Verdict(verdict)
    short = run("-k", "passes")
    assert short.ret == 1
    short.stdout.fnmatch_lines([f"selftests/test_guest.py {verdict[0].upper()}*"])
    verbose = run("-k", "passes", "-v")
    verbose.stdout.fnmatch_lines([f"*::test_passes {verdict.upper()}*"])


def test_failure_in_teardown_only_exits_1(harness: Harness, run: Run) -> None:
    harness.verdicts["test_passes"] = Verdict.ERROR
    assert run("-k", "passes").ret == 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
def test_interrupted_run_cleans_up_and_writes_report(
    harness: Harness, run: Run, request: pytest.FixtureRequest, sent: signal.Signals
) -> None:
    # A shell ignores SIGINT in background jobs, and Python then keeps it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt(item: pytest.Item) -> None:
        if item.name == "test_fails":
            os.kill(os.getpid(), sent)

    harness.before_test = interrupt
    result = run()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    summary = harness.summary()
    assert summary["info"]["interrupted"] is True
    assert [test["nodeid"] for test in summary["tests"]] == ["selftests/test_guest.py::test_passes"]
    assert harness.events == ["run directory made", "VMs killed", "run directory removed"]


def test_vms_are_killed_before_report_and_run_directory_removed_last(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_run = inputs_and_history.archive_run

    def archive(*args: object) -> object:
        harness.events.append("report written")
        return archive_run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(inputs_and_history, "archive_run", archive)
    run()
    assert harness.events == [
        "run directory made", "VMs killed", "report written", "run directory removed",
    ]  # fmt: skip


def test_unwritable_report_directory_exits_2(harness: Harness, run: Run) -> None:
    harness.context.report.parent.mkdir(parents=True)
    harness.context.report.write_text("a file where a directory is needed")
    result = run()
    assert result.ret == 2
    result.stderr.fnmatch_lines(["flowmap: *choose a folder*"])


def test_controller_under_tox_dies_with_parent(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOX_ENV_NAME", "vm")
    run()
    assert harness.events[0] == "dies with its parent"


def test_mutant_runs_likely_killers_first(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    harness.before_test = lambda item: order.append(item.name)
    monkeypatch.setattr(mutant, "load", lambda _patch: SimpleNamespace(clauses=["SN"]))
    first = "selftests/test_guest.py::test_fails"
    run("--mutant", "bug.patch", f"--run-first={first}")
    assert order == ["test_fails", "test_passes"]
    assert not list(harness.context.cache.rglob("*.json"))
