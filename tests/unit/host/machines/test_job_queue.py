# SPDX-License-Identifier: GPL-2.0-only
"""Jobs on fake machines: distribution, lost machines, Ctrl-C."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fixtures.host.machines.job_queue import MAX_ATTEMPTS, JobEnd, JobQueue
from fixtures.host.machines.machine import Job, MachineLostError


@dataclass
class FakeMachine:
    """Runs a function in place of a job."""

    name: str
    work: Callable[[Job, threading.Event], int]
    done: list[str] = field(default_factory=list)

    def run(self, job: Job, folder: Path, stop: threading.Event) -> int:  # noqa: ARG002
        self.done.append(job.name)
        return self.work(job, stop)


def _lose(job: Job, stop: threading.Event) -> int:  # noqa: ARG001
    raise MachineLostError("gone")


def _run(
    machines: list[FakeMachine], jobs: list[Job]
) -> tuple[list[Job], list[JobEnd], Callable[[], list[Job]]]:
    ends: list[JobEnd] = []

    def ended(end: JobEnd) -> Job | None:
        ends.append(end)
        return end.job if end.status is None else None

    queue = JobQueue(machines, lambda job, n: Path(f"{job.name}-{n}"), lambda *_: None, ended)
    return [], ends, lambda: queue.run(jobs)


JOBS = [Job(name, ()) for name in ("one", "two", "three")]


def test_each_job_runs_once() -> None:
    machines = [FakeMachine(name, lambda *_: 0) for name in "ab"]
    _, ends, run = _run(machines, JOBS)
    assert run() == []
    assert sorted(end.job.name for end in ends) == ["one", "three", "two"]


def test_two_machines_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(*_: object) -> int:
        both.wait()
        return 0

    _, _, run = _run([FakeMachine(name, meet) for name in "ab"], JOBS[:2])
    assert run() == []


def test_job_of_lost_machine_goes_to_another_that_waits() -> None:
    lost = threading.Event()

    def lose_later(*_: object) -> int:
        lost.wait(60)
        raise MachineLostError("gone")

    def work(*_: object) -> int:
        lost.set()
        return 0

    bad, good = FakeMachine("bad", lose_later), FakeMachine("good", work)
    _, ends, run = _run([bad, good], JOBS[:2])
    assert run() == []
    assert len(bad.done) == 1
    assert sorted(good.done) == ["one", "two"]
    assert [end.status for end in ends] == [0, None, 0]
    assert [str(end.folder)[-1] for end in ends][-1] == "2"


def test_without_machines_jobs_are_left() -> None:
    _, ends, run = _run([FakeMachine(name, _lose) for name in "ab"], JOBS)
    assert sorted(job.name for job in run()) == ["one", "three", "two"]
    assert [end.reason for end in ends] == ["gone", "gone"]


def test_job_that_loses_every_machine_is_not_given_to_all() -> None:
    def lose_one(job: Job, stop: threading.Event) -> int:
        return _lose(job, stop) if job.name == "one" else 0

    machines = [FakeMachine(name, lose_one) for name in "abcdef"]
    _, _, run = _run(machines, JOBS)
    assert [job.name for job in run()] == ["one"]
    assert sum(machine.done.count("one") for machine in machines) == MAX_ATTEMPTS


def test_ctrl_c_stops_all_machines_and_their_ends_are_recorded() -> None:
    started = threading.Barrier(2, timeout=60)

    def work(_: Job, stop: threading.Event) -> int:
        if started.wait() == 0:
            os.kill(os.getpid(), signal.SIGINT)  # as a terminal does: to the process
        assert stop.wait(60)
        return 2

    _, ends, run = _run([FakeMachine(name, work) for name in "ab"], JOBS)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [(end.status, end.interrupted) for end in ends] == [(2, True), (2, True)]


def test_error_in_a_thread_is_raised_and_stops_the_others() -> None:
    def fail(*_: object) -> int:
        raise OSError("disk full")

    waiting = FakeMachine("b", lambda _, stop: 0 if stop.wait(60) else 1)
    _, _, run = _run([FakeMachine("a", fail), waiting], JOBS)
    with pytest.raises(OSError, match="disk full"):
        run()
