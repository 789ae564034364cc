# SPDX-License-Identifier: GPL-2.0-only
"""Running a build: steps are counted, errors shown, and an interrupt ends all processes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.host.kernel import kbuild
from fixtures.host.util.errors import UserError
from fixtures.host.util.file_lock import exclusive_lock
from fixtures.host.util.progress import Advance


class Recorder:
    """Records the progress."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.totals: list[float | None] = []

    def say(self, line: str) -> None:
        """Not used here."""
        raise NotImplementedError(line)

    @contextmanager
    def task(self, name: str, total: float | None) -> Iterator[Advance]:
        """Record the numbers."""
        assert name
        self.totals.append(total)
        yield self.seen.append


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kbuild.Builder]:
    """Return a builder that runs the shell script ``script`` in its folder instead of tuxmake."""
    folder = tmp_path / "src/build-x"
    folder.mkdir(parents=True)
    with exclusive_lock(tmp_path / "lock") as lock:
        made = kbuild.Builder(folder.parent, folder, tmp_path, lock)
        real = made._follow
        monkeypatch.setattr(
            made, "_follow", lambda _, advance: real(["sh", str(folder / "script")], advance)
        )
        yield made


def test_steps_are_counted_and_estimate_next_build(builder: kbuild.Builder) -> None:
    (builder.build_dir / "script").write_text("echo '  CC      a.o'\necho '  LD [M]  b.ko'\n")
    shown = Recorder()
    assert builder.build(shown, "x") == 2
    assert shown.seen == [1, 2]
    builder.build(shown, "x")
    assert shown.totals == [kbuild.CLEAN_BUILD_STEPS, 2]


def test_steps_of_interrupted_build_count_as_done(builder: kbuild.Builder) -> None:
    for name in ("a.o", "b.o"):
        (builder.build_dir / f".{name}.cmd").write_text("")
    (builder.build_dir / "script").write_text("echo '  CC      c.o'\n")
    shown = Recorder()
    builder.build(shown, "x")
    assert shown.seen == [3]


def test_failed_build_shows_first_error_and_names_log(builder: kbuild.Builder) -> None:
    (builder.build_dir / "script").write_text(
        "echo '  CC      a.o'\necho 'a.c:1:2: error: no such thing'\necho 'make: Error 2'\nexit 2\n"
    )
    with pytest.raises(UserError, match=r"a\.c:1:2: error: no such thing.*build\.log"):
        builder.build(Recorder(), "x")


def test_interrupt_ends_every_process_of_build(builder: kbuild.Builder, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    (builder.build_dir / "script").write_text(
        f"sh -c 'echo $$ > {pid_file}; echo \"  CC      a.o\"; exec sleep 600' &\nwait\n"
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
    assert exits(int(pid_file.read_text()))


def exits(pid: int, timeout: float = 5.0) -> bool:
    """Tell whether a process exits before a timeout in seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False
