# SPDX-License-Identifier: GPL-2.0-only
"""Fakes for tests of the host's pytest plugin: no kernel, no VM, real pytest hooks."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from _pytest.runner import runtestprotocol

from fixtures.host.execution.snapshot_layers import SnapshotLayers
from fixtures.host.execution.verdict import TestVerdict
from fixtures.host.model.results import TestResult, Verdict, area_of, outcome_of
from fixtures.host.pytest_plugin import (
    affected_mode,
    controller,
    guest_runner,
    guest_test_paths,
    hooks,
    kselftest_mode,
    run_reporter,
    xdist_worker,
)
from fixtures.host.pytest_plugin.run_context import RunContext
from fixtures.host.util.atomic_write import write_atomic
from fixtures.host.vm.qemu_args import MachineConfig

PLUGINS = (
    "-p", "fixtures.host.pytest_plugin.options", "-p", "fixtures.host.pytest_plugin.hooks",
    "-p", "no:cacheprovider",
)  # fmt: skip

TESTS = """
def test_passes(): pass
def test_fails(): assert 1 == 2
"""

NODEIDS = ("selftests/test_guest.py::test_passes", "selftests/test_guest.py::test_fails")


@dataclass
class FakeLayers:
    """Snapshot layers of a guest that does not exist."""

    collected: dict[str, list[str]] = field(default_factory=lambda: {test: [] for test in NODEIDS})
    missing: list[str] = field(default_factory=list)

    def clauses_by_test(self) -> dict[str, list[str]]:
        return self.collected

    def missing_features(self) -> list[str]:
        return self.missing


class FakeRunner:
    """Runs tests in this process; a test's verdict is in `verdicts`, or its pytest outcome."""

    def __init__(self, harness: "Harness", name: str) -> None:
        self._harness = harness
        self._name = name

    def run(self, item: pytest.Item) -> list[pytest.TestReport]:
        self._harness.before_test(item)
        reports = runtestprotocol(item, nextitem=None, log=False)
        failed = any(report.failed for report in reports)
        verdict = TestVerdict(Verdict.FAILED if failed else Verdict.PASSED)
        if (name := self._harness.verdicts.get(item.name)) is not None:
            verdict = TestVerdict(name, f"verdict {name}")
            reports = guest_runner._apply_verdict(item, reports, verdict)
        result = TestResult(
            nodeid=item.nodeid,
            area=area_of(item.nodeid),
            verdict=verdict.verdict,
            outcome=outcome_of(verdict.verdict),
            message=verdict.message,
            worker=self._name,
        )
        reports[-1].flowmap_result = json.dumps(asdict(result))  # type: ignore[attr-defined]
        return reports

    def close(self) -> None:
        self._harness.events.append("VMs killed")


@dataclass
class Harness:
    """A run with fakes in place of kernel, VMs and snapshot layers.

    Attributes:
        context: the context that setting up the run returns.
        layers: its snapshot layers.
        set_up_error: raised when the run is set up.
        gaps: what the check of the contract's clauses finds.
        verdicts: verdicts by test name, in place of pytest's outcome.
        before_test: called before each test.
        events: clean-ups and the like, in order.
    """

    context: RunContext
    layers: FakeLayers = field(default_factory=FakeLayers)
    set_up_error: BaseException | None = None
    gaps: list[str] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    before_test: Callable[[pytest.Item], None] = lambda _item: None
    events: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the run in the report's summary.json."""
        text = (self.context.report / "summary.json").read_text()
        return cast(dict[str, Any], json.loads(text))

    @contextmanager
    def run_directory(self) -> Iterator[Path]:
        """Stand in for new_scratch()."""
        self.events.append("run directory made")
        yield self.context.scratch
        self.events.append("run directory removed")


def make_context(folder: Path) -> RunContext:
    """Return a context with all directories below one directory."""
    machine = MachineConfig(Path("bzImage"), "k", Path("root"), "r", "tcg", 1024, 2, ())
    return RunContext(
        profile="base",
        machine=machine,
        accel_reason="selected by --accel tcg",
        deadline_scale=3.0,
        scratch=folder / "scratch",
        cache=folder / "cache",
        payload=folder / "payload",
        start={"args": []},
        snapshots=True,
        vmlinux=folder / "vmlinux",
        modules=folder / "modules",
        tree=None,
        metadata={"key": "abc", "series": None, "source": {"kind": "image"}},
        release="7.3.4",
        report=folder / "report",
    )


def install_fakes(root: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """Replace everything that needs a kernel or a VM, and write two guest tests.

    Args:
        root: stands for the project's root.
        monkeypatch: undoes the replacements.
    """
    suite = root / "selftests"
    (suite / "upstream").mkdir(parents=True, exist_ok=True)
    # Every xdist worker does this, and no other one may read an empty file meanwhile.
    write_atomic(suite / "test_guest.py", TESTS.encode())
    write_atomic(root / "test_host.py", b"def test_on_host(): pass\n")
    harness = Harness(make_context(root / "run"))

    def set_up_run(*_: object) -> RunContext:
        if harness.set_up_error:
            raise harness.set_up_error
        return harness.context

    for module in (controller, hooks, guest_test_paths):
        monkeypatch.setattr(module, "SUITE_FOLDER", suite)
    monkeypatch.setattr(guest_test_paths, "GUEST_FOLDERS", (suite,))
    monkeypatch.setattr(kselftest_mode, "ROOT", root)
    monkeypatch.setattr(kselftest_mode, "TEST_FOLDER", suite / "upstream")
    monkeypatch.setattr(
        kselftest_mode,
        "make_runner",
        lambda _context, _config, name, _workers: FakeRunner(harness, name),
    )
    monkeypatch.setattr(
        controller, "hold_report_directory", lambda _chosen: nullcontext(harness.context.report)
    )
    monkeypatch.setattr(controller, "prune_automatically", lambda *_: None)
    monkeypatch.setattr(affected_mode, "require_changes", lambda _config: None)
    monkeypatch.setattr(controller, "find_gaps", lambda _clauses: harness.gaps)
    monkeypatch.setattr(controller, "set_up_run", set_up_run)
    monkeypatch.setattr(controller, "new_run_directory", harness.run_directory)
    for role in (controller, xdist_worker):
        monkeypatch.setattr(
            role, "die_with_parent", lambda: harness.events.append("dies with its parent")
        )
    monkeypatch.setattr(
        RunContext, "snapshot_layers", lambda _self, _log: cast(SnapshotLayers, harness.layers)
    )
    monkeypatch.setattr(run_reporter, "qemu_version", lambda *_: "QEMU emulator version 7.2")
    return harness
