# SPDX-License-Identifier: GPL-2.0-only
"""``tox -e bench``: suites, VMs, written files, and errors for bad input."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.host.bench import cli, harness_benchmark, plots, suites
from fixtures.host.bench.icount import with_icount
from fixtures.host.bench.runner import GUEST_BENCH_DIR, failure_reason
from fixtures.host.execution.run_test_in_vm import Execution
from fixtures.host.model.bench_results import TIME, FailedMeasurement, Measurement
from fixtures.host.util.errors import InfraError, UserError
from fixtures.host.util.paths import ROOT
from fixtures.host.vm import qemu_args
from fixtures.host.vm.qemu_args import MachineConfig
from tests.unit.host.bench.bench_samples import make_bench_results, make_measurement

_MACHINE = MachineConfig(Path("bzImage"), "k", Path("root"), "r", "kvm", 1024, 2, ("quiet",))


def test_selected_suites_keep_their_order() -> None:
    names = [suite.name for suite in cli.select_suites(["mirror", "lookup"])]
    assert names == ["lookup", "lookup", "mirror", "mirror"]
    assert cli.select_suites(None) == list(suites.SUITES)


def test_unknown_suite_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="unknown suite; choose from clock"):
        cli.select_suites(["speed"])
    assert cli.main(["--only", "speed"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_suites_with_two_cpus_have_no_icount_vm() -> None:
    (machines,) = {suite.machines for suite in suites.SUITES if suite.name == "cpus"}
    assert machines == (TIME,)


def test_every_suite_has_measurements() -> None:
    for suite in suites.SUITES:
        function = suite.match if suite.match.startswith("measure_") else "measure_"
        assert f"def {function}" in (ROOT / GUEST_BENCH_DIR / suite.file).read_text()


def test_empty_test_of_harness_benchmark_exists() -> None:
    file, _, function = harness_benchmark._EMPTY_TEST.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text()


def test_icount_vm_is_single_threaded_with_own_snapshots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(qemu_args, "qemu_version", lambda *_: "QEMU emulator version 7.2")
    made = with_icount(_MACHINE)
    words = made.qemu_args(1, 2, 3)
    assert "tcg,thread=single" in words
    assert words[words.index("-icount") + 1] == "shift=0,sleep=off"
    assert words[words.index("-smp") + 1] == "1"
    assert made.snapshot_key.endswith("-counting")


def test_render_reproduces_written_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    run = make_bench_results(
        [
            make_measurement("lookup", 1.0, by="flow map"),
            make_measurement("lookup", 2.0, by="kfunc"),
        ]
    )
    first, second = tmp_path / "first", tmp_path / "second"
    cli.write_results(run, first)
    assert cli.main(["--render", str(first / "bench.json"), "--to", str(second)]) == 0
    assert (second / "bench.md").read_text() in capsys.readouterr().out
    assert (second / "bench.json").read_text() == (first / "bench.json").read_text()


def _report(outcome: str, longrepr: object = None) -> dict[str, object]:
    return {"when": "call", "outcome": outcome, "longrepr": longrepr}


@pytest.mark.parametrize(
    ("done", "reports", "why"),
    [
        (Execution(1, finished={"how": "exited", "code": 0, "leaks": []}), [], None),
        (Execution(1, finished={"how": "timeout"}), [], "did not exit cleanly"),
        (
            Execution(1, vm_failure="silent", vm_failure_detail="no message"),
            [],
            "silent: no message",
        ),
        (Execution(1, console="[    1.000000] WARNING: CPU: 0"), [], "WARNING"),
        (
            Execution(1, finished={"how": "exited", "code": 0, "leaks": []}),
            [_report("failed", {"reprcrash": {"message": "assert 1 == 2"}})],
            "assert 1 == 2",
        ),
        (
            Execution(1, finished={"how": "exited", "code": 0, "leaks": []}),
            [_report("skipped", ["file", 1, "Skipped: no table"])],
            "no table",
        ),
    ],
)
def test_failure_reason_of_measurement(
    done: Execution, reports: list[dict[str, object]], why: str | None
) -> None:
    reason = failure_reason(done, reports)
    assert reason is None if why is None else why in str(reason)


def test_measurements_before_an_error_are_kept() -> None:
    def fail_after_first() -> Iterator[Measurement]:
        yield make_measurement("first line", 1.0)
        raise InfraError("a run of tests failed\nand so on")

    found: list[Measurement] = []
    missing: list[FailedMeasurement] = []
    cli._collect(fail_after_first(), "base", found, missing)
    assert [each.name for each in found] == ["first line"]
    assert [each.why for each in missing] == ["a run of tests failed"]
