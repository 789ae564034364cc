# SPDX-License-Identifier: GPL-2.0-only
"""The native race engine, run on the host: it executes its plan and reports the outcomes."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from fixtures.guest.race import native_race, native_race_plan
from fixtures.host.compile.race_engine import compile_race_engine

ROUNDS = 50


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_race_engine(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _engine_path(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMAP_ENGINE", str(program))


def _thread(name: str, cpu: int = 0) -> native_race_plan.ThreadPlan:
    cpus = sorted(os.sched_getaffinity(0))
    if cpu >= len(cpus):
        pytest.skip(f"{cpu + 1} threads need as many CPUs")
    return native_race_plan.ThreadPlan(name, cpus[cpu])


def test_outcome_is_result_of_steps() -> None:
    thread = _thread("one")
    content = thread.buffer(b"as it is")
    thread.expect_buffer(content, 3, b"it")
    report = native_race.run([thread], ROUNDS)
    assert report.outcomes("one") == {"ok": ROUNDS}

    thread.expect_buffer(content, 0, b"otherwise")
    with pytest.raises(AssertionError, match="expectation beyond its buffer"):
        native_race.run([thread], ROUNDS)


def test_first_failing_step_ends_round() -> None:
    thread = _thread("one")
    content = thread.buffer(b"as it is")
    thread.expect_buffer(content, 0, b"is")
    thread.close(native_race_plan.Register(0))  # would be EBADF
    assert native_race.run([thread], ROUNDS).outcomes("one") == {"EILSEQ": ROUNDS}


def test_tolerated_errno_skips_dependent_steps() -> None:
    thread = _thread("one")
    content = thread.buffer(b"as it is")
    thread.expect_buffer(content, 0, b"other", tolerate=errno.EILSEQ, skip=1)
    thread.expect_buffer(content, 0, b"is")
    thread.times = 3
    report = native_race.run([thread], ROUNDS)
    assert report.outcomes("one") == {"ok": ROUNDS}
    assert report.tolerated == {"one": 3 * ROUNDS}


def test_rounds_of_two_threads_overlap() -> None:
    threads = [_thread("one"), _thread("other", 1)]
    for thread in threads:
        content = thread.buffer(bytes(64))
        for _ in range(100):
            thread.expect_buffer(content, 0, bytes(64))
        thread.times = 50
    report = native_race.run(threads, ROUNDS, jitter=0)
    assert report.rounds == ROUNDS
    assert report.overlaps > 0
    assert all(call.begin <= call.end for calls in report.calls.values() for call in calls)


def test_same_seed_repeats_waits() -> None:
    threads = [_thread("one"), _thread("other", 1)]
    first, again, another = (native_race.run(threads, ROUNDS, seed=seed) for seed in (7, 7, 8))
    assert first.seed == again.seed == 7
    assert first.jitters == again.jitters
    assert first.jitters != another.jitters
    assert first.jitters["one"] != first.jitters["other"]
    assert len(set(first.jitters["one"])) > ROUNDS // 2


@pytest.mark.parametrize("damage", ["truncated", "trailing_data", "wrong_version"])
def test_damaged_plan_is_rejected(program: Path, tmp_path: Path, damage: str) -> None:
    plan = native_race_plan.pack_plan([_thread("one")], 5, 7, 0.0, 1.0)
    if damage == "truncated":
        plan = plan[:-1]
    elif damage == "trailing_data":
        plan += b"x"
    else:
        plan = plan[:4] + b"\xff" + plan[5:]
    (tmp_path / "plan").write_bytes(plan)
    done = subprocess.run(
        [program, tmp_path / "plan", tmp_path / "results"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("race_engine: plan:")
    assert not (tmp_path / "results").exists()
