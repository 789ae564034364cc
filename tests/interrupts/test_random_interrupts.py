# SPDX-License-Identifier: GPL-2.0-only
"""Runs that end at random moments: no process is left, no cache damaged, the next run is right.

Two runs are always started side by side, with a cache of their own of which random parts are
missing.  Each ends by SIGKILL, SIGTERM, Ctrl-C or a full disk, at a moment that the seed decides.
``FLOWMAP_INTERRUPTS`` is the number of runs, ``FLOWMAP_INTERRUPT_SEED`` repeats the same moments.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.host.cache_command.inventory import list_entries
from fixtures.host.cache_command.pruning import remove
from fixtures.host.util.cache_use import shared_cache_use
from fixtures.host.util.file_lock import try_exclusive_lock
from fixtures.host.util.paths import BUILD, cache_dir
from tests.canary.inner_run import ROOT, inner_environment, marked_processes, wait_until
from tests.interrupts import own_cache
from tests.unit.host.util.small_file_system import small_file_system

RUNS = int(os.environ.get("FLOWMAP_INTERRUPTS", "20"))
SEED = int(os.environ.get("FLOWMAP_INTERRUPT_SEED") or random.SystemRandom().randrange(1 << 32))

_FILE = "selftests/snoop/test_snoop_flag.py"
_TESTS = (
    f"{_FILE}::test_snoop_flag_is_accepted_and_dumped",
    f"{_FILE}::test_snoop_counters_are_dumped_for_snoop_tables_only",
    f"{_FILE}::test_snoop_flag_change_is_eopnotsupp",
)
_ENDINGS = ("SIGKILL", "SIGTERM", "Ctrl-C", "full disk")
_MIB = 3072
_TIMEOUT = 600.0  # seconds until a run ends by itself
_INTERRUPTED = (2, 130)


@dataclass
class _Interrupted:
    """A run, and how and when it is to end."""

    process: "subprocess.Popen[bytes]"
    how: str
    moment: float
    log: Path

    def __str__(self) -> str:
        status = self.process.returncode
        return f"{self.how} after {self.moment:.2f} s, status {status}: {self.log.read_text()}"


@dataclass
class _Bench:
    """The cache of the runs, and what a good run looks like.

    Attributes:
        disk: the small file system.
        logs: folder outside of it.
        verdicts: verdict of each test in a good run.
        cold: seconds of a run on an empty cache.
        warm: seconds of a run on a full one.
        endings: how a run may end; only root can mount a file system that is then filled.
    """

    disk: Path
    logs: Path
    verdicts: dict[str, str]
    cold: float = 0.0
    warm: float = 0.0
    endings: tuple[str, ...] = _ENDINGS

    @property
    def cache(self) -> Path:
        return self.disk / "cache"

    def start(self, mark: str, name: str, *options: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "pytest", f"--report={self.disk / name}", *options]
        with (self.logs / name).open("wb") as log:
            return subprocess.Popen(
                [*command, *_TESTS],
                cwd=ROOT,
                env=inner_environment(
                    FLOWMAP_MARK=mark, FLOWMAP_CACHE=str(self.cache), FLOWMAP_CACHE_LIMIT="0"
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the whole group, as on a terminal
            )

    def run(self, name: str) -> float:
        """Run the tests; return the seconds that it took. They must have the usual verdicts."""
        began = time.monotonic()
        process = self.start(f"flowmap-good-{name}", name, "-n", "2")
        assert process.wait(_TIMEOUT) == 0, (self.logs / name).read_text()
        summary = json.loads((self.disk / name / "summary.json").read_text())
        verdicts = {test["nodeid"]: test["verdict"] for test in summary["tests"]}
        assert set(verdicts.values()) == {"passed"}
        assert verdicts == (self.verdicts or verdicts)
        self.verdicts = verdicts
        return time.monotonic() - began


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[_Bench]:
    """A cache on a file system that can be filled, after two good runs."""
    done = subprocess.run(
        [sys.executable, "-m", "fixtures.host.kernel"],
        cwd=ROOT, env=inner_environment(), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    kernel = Path(done.stdout.splitlines()[-1])
    with ExitStack() as stack:
        stack.enter_context(shared_cache_use(cache_dir()))
        disk = tmp_path / "disk"
        disk.mkdir()
        made = _Bench(disk, tmp_path, {})
        if os.geteuid() == 0:
            stack.enter_context(small_file_system(disk, _MIB << 10))
        else:
            made.endings = _ENDINGS[:-1]
        own_cache.make_cache(made.cache, cache_dir(), kernel)
        made.cold = made.run("cold")
        made.warm = made.run("warm")
        yield made


def _interrupt(run: _Interrupted, disk: Path, cleanup: ExitStack) -> None:
    """End a run at its moment, unless it has ended."""
    match run.how:
        case "SIGKILL":
            run.process.kill()
        case "SIGTERM":
            run.process.terminate()
        case "Ctrl-C":
            os.killpg(run.process.pid, signal.SIGINT)
        case _:
            ballast = own_cache.fill(disk)
            cleanup.callback(ballast.unlink)


def _end(runs: list[_Interrupted], disk: Path) -> None:
    """End runs at their moments, and wait until their processes have exited."""
    began = time.monotonic()
    with ExitStack() as cleanup:
        for run in sorted(runs, key=lambda each: each.moment):
            try:
                run.process.wait(max(0.0, began + run.moment - time.monotonic()))
            except subprocess.TimeoutExpired:
                _interrupt(run, disk, cleanup)
        for run in runs:
            run.process.wait(_TIMEOUT)


def _check_end(run: _Interrupted, disk_was_full: bool) -> None:
    """Check exit status and last words of a run that was interrupted."""
    text, status = run.log.read_text(errors="replace"), run.process.returncode
    if run.how == "SIGKILL" or "flowmap: " not in text:
        return  # Python itself handles a signal before pytest has started
    allowed = {0, *_INTERRUPTED, *([1, 2, 3] if disk_was_full else [])}
    assert status in allowed, str(run)
    assert "Traceback (most recent call last)" not in text, str(run)
    assert "INTERNALERROR" not in text, str(run)


def _wait_until_gone(mark: str) -> None:
    wait_until(lambda: not marked_processes(mark), "all processes of the runs have exited")


def _stale_run_directories() -> list[str]:
    stale = []
    for folder in (BUILD / "run").iterdir():
        with try_exclusive_lock(folder / "alive") as free:
            if free and folder.exists():
                stale.append(folder.name)
    return stale


@pytest.fixture(autouse=True)
def _default_sigint_handler() -> Iterator[None]:
    """Handle SIGINT: background jobs of a shell ignore it, and subprocesses inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_runs_that_end_at_random_moments_damage_nothing(bench: _Bench) -> None:
    print(f"FLOWMAP_INTERRUPT_SEED={SEED} FLOWMAP_INTERRUPTS={RUNS}")
    rng = random.Random(SEED)
    before = own_cache.content(bench.cache)
    for pair in range(RUNS // 2):
        missing = rng.sample(own_cache.REMOVABLE, rng.randint(0, len(own_cache.REMOVABLE)))
        own_cache.make_cold(bench.cache, missing)
        limit = bench.cold if missing else bench.warm
        mark = f"flowmap-interrupt-{SEED}-{pair}-{os.getpid()}"
        runs = []
        for number in range(2):
            name = f"run-{pair}-{number}"
            workers = rng.choice(["0", "2"])
            runs.append(
                _Interrupted(
                    bench.start(mark, name, "-n", workers),
                    rng.choice(bench.endings),
                    rng.uniform(0.2, limit),
                    bench.logs / name,
                )
            )
        _end(runs, bench.disk)
        what = ", ".join(
            f"{run.how} at {run.moment:.1f} s: {run.process.returncode}" for run in runs
        )
        print(f"pair {pair}, without {missing}: {what}", flush=True)
        _wait_until_gone(mark)
        for run in runs:
            _check_end(run, any(each.how == "full disk" for each in runs))
        bench.run(f"next-{pair}")
        assert _stale_run_directories() == []
    after = own_cache.content(bench.cache)
    assert {path: after[path] for path in before} == before
    assert own_cache.history_errors(bench.cache) == "ok"
    found = [entry for entry in list_entries(bench.cache, BUILD) if entry.kind != "build/run"]
    left = [entry for entry in found if entry.leftover]
    done = remove(bench.cache, left)
    print(f"leftovers of killed runs: {len(left)}")
    assert (len(done.removed), done.failed, done.in_use) == (len(left), (), ())
    bench.run("last")
