# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of machines, and whose fault it is when one does not get as far as a test."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.execution import snapshot_layers
from fixtures.host.util.errors import InfraError, KernelError
from fixtures.host.vm.channel import ChannelClosed, ChannelTimeout
from fixtures.host.vm.snapshot import State
from fixtures.wire import Message

OOPS = "[    7.100000] BUG: kernel NULL pointer dereference, address: 00000000000000b0\n"


class Fake:
    """A machine that answers until it is asked for one thing, and has something to say then."""

    def __init__(
        self, fails_at: str = "", error: InfraError | None = None, last_words: str = ""
    ) -> None:
        self._fails_at, self._error, self._last_words = fails_at, error, last_words
        self._text = ""
        self.asked: list[str] = []
        self.killed = False
        self.channel = self.console = self

    def receive(self, _seconds: float) -> Message:
        return Message("ready")

    def text(self) -> str:
        return self._text

    def finish(self) -> None:
        assert self.killed

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        pass

    def wake(self, _seconds: float) -> None:
        pass

    def ask(self, message: Message, _seconds: float) -> Message:
        self.asked.append(message.kind)
        if message.kind == self._fails_at:
            self._text = self._last_words
            if self._error:
                raise self._error
        if message.kind == "start":
            return Message("started", {"errors": [], "clauses": {}})
        return Message("done", {"missing": []})

    def save(self, state: State) -> None:
        state.folder.mkdir()

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *_: object) -> None:
        pass


Make = Callable[..., snapshot_layers.Layers]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """What makes layers whose machines are a fake."""

    def made(fake: Fake, tests: str = "", *, snapshots: bool = False) -> snapshot_layers.Layers:
        monkeypatch.setattr(snapshot_layers, "VM", lambda *_: fake)
        (tmp_path / "tests").write_text(tests)
        (tmp_path / "modules").touch()
        return snapshot_layers.Layers(
            machine=cast(Any, SimpleNamespace(key="machine")),
            scratch=tmp_path,
            cache=tmp_path,
            tests=tmp_path / "tests",
            modules=tmp_path / "modules",
            start={},
            scale=1.0,
            snapshots=snapshots,
            say=lambda _text: None,
        )

    return made


@pytest.mark.parametrize("asked", ["deliver", "start", "features"])
@pytest.mark.parametrize(
    "error", [ChannelTimeout("no message for 60 s"), ChannelClosed("gone"), InfraError("failed")]
)
def test_kernel_that_has_complained_is_at_fault(make: Make, asked: str, error: InfraError) -> None:
    with pytest.raises(KernelError, match="NULL pointer dereference"):
        make(Fake(asked, error, OOPS)).missing()


@pytest.mark.parametrize("asked", ["deliver", "start"])
def test_complaint_before_the_first_test_is_not_lost(make: Make, asked: str) -> None:
    with pytest.raises(KernelError, match="NULL pointer dereference"):
        make(Fake(asked, None, OOPS)).missing()


def test_kernel_that_complains_of_what_tests_do_is_for_the_tests_to_judge(make: Make) -> None:
    answers = Fake("features", None, OOPS)
    assert make(answers).missing() == []


@pytest.mark.parametrize("asked", ["deliver", "start", "features"])
def test_kernel_that_has_not_is_not(make: Make, asked: str) -> None:
    with pytest.raises(InfraError, match="no message"):
        make(Fake(asked, ChannelTimeout("no message for 60 s"), "all is well\n")).missing()


def test_the_same_tests_are_collected_once(make: Make) -> None:
    first, again, other = Fake(), Fake(), Fake()
    make(first, "some", snapshots=True).clauses()
    make(again, "some", snapshots=True).clauses()
    make(other, "others", snapshots=True).clauses()
    assert (first.asked, again.asked) == (["deliver", "start"], [])
    assert other.asked == first.asked


def test_what_a_killed_run_left_is_removed(make: Make, tmp_path: Path) -> None:
    left = tmp_path / "snapshots/machine/state.123.part"
    left.mkdir(parents=True)
    make(Fake(), snapshots=True).clauses()
    assert not left.exists()
    assert (tmp_path / "snapshots/machine/state").exists()
