# SPDX-License-Identifier: GPL-2.0-only
"""Jobs over a fake ssh, with the real agent in a process of its own: results, stops, losses."""

import io
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.host.machines import machine, remote_agent, ssh_machine
from fixtures.host.machines.machine import Job, MachineLostError
from tests.unit.host.machines.fake_machines import is_alive, make_machine

JOB = Job("base", ("--vmconfig", "base", "-k", "two words"), ("a.py::test[x y]", "a.py::test_b"))


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def _in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run a function in a thread; returns it and the list that gets its result or exception."""
    ends: list[object] = []

    def run() -> None:
        try:
            ends.append(work())
        except MachineLostError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ends


def test_job_gets_project_arguments_and_tests_and_leaves_nothing(tmp_path: Path) -> None:
    worker = make_machine(tmp_path, "echo hello; echo x >build/job-report/artefacts/log; exit 1")
    assert worker.run(JOB, tmp_path / "got", threading.Event()) == 1
    got = tmp_path / "got"
    expected = "--report build/job-report --vmconfig base -k two words @build/tests.txt\n"
    assert (got / "arguments").read_text() == expected
    assert (got / "tests").read_text() == "a.py::test[x y]\na.py::test_b\n"
    assert (got / "artefacts/log").read_text() == "x\n"
    assert (got / "output.txt").read_text() == "hello\n"
    assert not (got / "results.tar.gz").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_process_that_job_leaves_in_its_own_session_is_killed(tmp_path: Path) -> None:
    commands = "setsid sleep 600 & echo $! >build/job-report/pid"
    assert make_machine(tmp_path, commands).run(JOB, tmp_path / "got", threading.Event()) == 0
    pid = int((tmp_path / "got/pid").read_text())
    _wait_for(lambda: not is_alive(pid))


def test_stopped_job_is_interrupted_and_sends_what_it_has(tmp_path: Path) -> None:
    started = tmp_path / "started"
    commands = f"trap 'echo partial >build/job-report/part; exit 2' INT; touch {started}\n"
    commands += "while :; do sleep 0.1; done"
    stop = threading.Event()
    worker = make_machine(tmp_path, commands)
    thread, ends = _in_thread(lambda: worker.run(JOB, tmp_path / "got", stop))
    _wait_for(started.exists)
    stop.set()
    thread.join()
    assert ends == [2]
    assert (tmp_path / "got/part").read_text() == "partial\n"
    assert list((tmp_path / "work").iterdir()) == []


def test_job_that_ignores_the_interrupt_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_machine, "STOP_TIMEOUT", 1.0)
    started = tmp_path / "started"
    commands = f"trap '' INT; echo $$ >{started}; while :; do sleep 0.1; done"
    stop = threading.Event()
    worker = make_machine(tmp_path, commands)
    thread, ends = _in_thread(lambda: worker.run(JOB, tmp_path / "got", stop))
    _wait_for(lambda: started.exists() and started.read_text())
    stop.set()
    thread.join()
    assert ends == [137]
    assert not is_alive(int(started.read_text()))
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_signal_to_the_agent_is_a_loss_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    commands = f"trap 'exit 2' INT; touch {started}; while :; do sleep 0.1; done"
    worker = make_machine(tmp_path, commands)
    thread, ends = _in_thread(lambda: worker.run(JOB, tmp_path / "got", threading.Event()))
    _wait_for(started.exists)
    os.kill(int((tmp_path / "pid").read_text()), number)
    thread.join()
    assert str(ends[0]) == f"worker: the job was stopped there: {number.name}"
    assert list((tmp_path / "work").iterdir()) == []


def test_killed_agent_is_a_loss_and_the_next_job_removes_its_folder(tmp_path: Path) -> None:
    started = tmp_path / "started"
    commands = f"echo $$ >{started}; while :; do sleep 0.1; done"
    worker = make_machine(tmp_path, commands)
    thread, ends = _in_thread(lambda: worker.run(JOB, tmp_path / "got", threading.Event()))
    _wait_for(lambda: started.exists() and started.read_text())
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    thread.join()
    assert str(ends[0]).startswith("worker: ssh ended with status -9")
    _wait_for(lambda: not is_alive(int(started.read_text())))
    assert len(list((tmp_path / "work").iterdir())) == 1
    assert make_machine(tmp_path, "exit 0").run(JOB, tmp_path / "next", threading.Event()) == 0
    assert list((tmp_path / "work").iterdir()) == []


def test_silence_of_the_controller_stops_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_machine, "SILENCE", 1.0)
    monkeypatch.setattr(ssh_machine, "HEARTBEAT", 3600.0)
    worker = make_machine(tmp_path, "trap 'exit 2' INT; while :; do sleep 0.1; done")
    with pytest.raises(MachineLostError, match=r"^worker: the job was stopped there: no heartbeat"):
        worker.run(JOB, tmp_path / "got", threading.Event())
    assert list((tmp_path / "work").iterdir()) == []


def test_heartbeats_keep_the_job_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_machine, "SILENCE", 2.0)
    monkeypatch.setattr(ssh_machine, "HEARTBEAT", 0.2)
    worker = make_machine(tmp_path, "sleep 4")
    assert worker.run(JOB, tmp_path / "got", threading.Event()) == 0


def test_host_that_refuses_the_connection_is_named_with_the_reason(tmp_path: Path) -> None:
    worker = make_machine(tmp_path, "exit 0")
    (tmp_path / "ssh").write_text("#!/bin/sh\necho 'ssh: connect: refused' >&2\nexit 255\n")
    with pytest.raises(MachineLostError, match=r"^worker: ssh: connect: refused$"):
        worker.run(JOB, tmp_path / "got", threading.Event())


def test_results_outside_of_the_folder_are_not_written(tmp_path: Path) -> None:
    archive = tmp_path / "results.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in (
            ("../outside", b"x"),
            ("/tmp/outside-of-results", b"x"),
            ("./inside", b"x"),
            (remote_agent.STATUS_NAME, b'{"status": 0, "stopped": ""}'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    assert ssh_machine.unpack_results(archive, tmp_path / "got") == (0, "")
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["inside"]
    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/outside-of-results").exists()


def test_results_without_status_are_incomplete(tmp_path: Path) -> None:
    archive = tmp_path / "results.tar.gz"
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(KeyError):
        ssh_machine.unpack_results(archive, tmp_path / "got")


def test_local_job_is_interrupted_and_its_status_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\ntrap 'exit 2' INT; touch {started}\nwhile :; do sleep 0.1; done"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    stop = threading.Event()
    local = machine.LocalMachine()
    thread, ends = _in_thread(lambda: local.run(JOB, tmp_path / "got", stop))
    _wait_for(started.exists)
    stop.set()
    thread.join()
    assert ends == [2]
    assert (tmp_path / "got/tests.txt").read_text().splitlines() == list(JOB.tests)
