# SPDX-License-Identifier: GPL-2.0-only
"""Running a build: steps are counted, errors shown, and stopping it stops all of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.host.kernel import kbuild
from fixtures.host.util.errors import UserError
from fixtures.host.util.file_lock import locked
from fixtures.host.util.progress import Advance


class Recorder:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.totals: list[float | None] = []

    def say(self, line: str) -> None:
        """Not used here."""
        raise NotImplementedError(line)

    @contextmanager
    def task(self, name: str, total: float | None) -> Iterator[Advance]:
        """Keep the numbers."""
        assert name
        self.totals.append(total)
        yield self.seen.append


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kbuild.Builder]:
    """A builder whose tuxmake is a shell script, ``script`` in the build folder."""
    folder = tmp_path / "src/build-x"
    folder.mkdir(parents=True)
    with locked(tmp_path / "lock") as lock:
        made = kbuild.Builder(folder.parent, folder, tmp_path, lock)
        real = made._follow
        monkeypatch.setattr(
            made, "_follow", lambda _, advance: real(["sh", str(folder / "script")], advance)
        )
        yield made


def test_steps_are_counted_and_make_the_next_estimate(builder: kbuild.Builder) -> None:
    (builder.build_dir / "script").write_text("echo '  CC      a.o'\necho '  LD [M]  b.ko'\n")
    shown = Recorder()
    assert builder.build(shown, "x") == 2
    assert shown.seen == [1, 2]
    builder.build(shown, "x")
    assert shown.totals == [kbuild.FIRST_GUESS, 2]


def test_what_an_interrupted_build_left_counts_as_done(builder: kbuild.Builder) -> None:
    for name in ("a.o", "b.o"):
        (builder.build_dir / f".{name}.cmd").write_text("")
    (builder.build_dir / "script").write_text("echo '  CC      c.o'\n")
    shown = Recorder()
    builder.build(shown, "x")
    assert shown.seen == [3]


def test_a_failed_build_shows_the_first_error_and_names_the_log(builder: kbuild.Builder) -> None:
    (builder.build_dir / "script").write_text(
        "echo '  CC      a.o'\necho 'a.c:1:2: error: no such thing'\necho 'make: Error 2'\nexit 2\n"
    )
    with pytest.raises(UserError, match=r"a\.c:1:2: error: no such thing.*build\.log"):
        builder.build(Recorder(), "x")


def test_an_interrupt_ends_every_process_of_the_build(
    builder: kbuild.Builder, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    (builder.build_dir / "script").write_text(
        f"sh -c 'echo $$ > {told}; echo \"  CC      a.o\"; exec sleep 600' &\nwait\n"
    )

    class Interrupts(Recorder):
        @contextmanager
        def task(self, name: str, total: float | None) -> Iterator[Advance]:
            assert name
            assert total

            def interrupt(done: float) -> None:
                assert done
                raise KeyboardInterrupt

            yield interrupt

    with pytest.raises(KeyboardInterrupt):
        builder.build(Interrupts(), "x")
    assert ended(int(told.read_text()))


def ended(pid: int, patience: float = 5.0) -> bool:
    """Whether a process ends in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_a_lock_is_free_after_its_holder_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\n"
        "from fixtures.host.util.file_lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        waited: list[bool] = []

        def waiting() -> None:
            waited.append(True)
            holder.send_signal(signal.SIGKILL)

        with locked(path, waiting):
            assert waited


def test_a_child_that_outlives_its_parent_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as descriptor:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(descriptor,))
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(True)
        child.kill()
        child.wait()

    with locked(path, waiting):
        assert waited
