# SPDX-License-Identifier: GPL-2.0-only
"""Message exchange for one test, with a scripted guest."""

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qemu.qmp import QMPError

from fixtures.host.execution.failure_capture import CORE_NOTE, FailureCapture
from fixtures.host.execution.run_test_in_vm import Execution, Executor
from fixtures.host.execution.snapshot_layers import SnapshotLayers
from fixtures.host.model.debug_options import DebugOptions
from fixtures.host.util.errors import KernelError, UserError
from fixtures.host.util.subprocess_util import CommandError
from fixtures.host.vm.channel import Channel, ChannelClosed, ChannelTimeout
from fixtures.host.vm.qemu_process import VM
from fixtures.wire import Message, encode


def test_executor_answers_memory_query_and_times_it() -> None:
    host, guest = socket.socketpair()
    query = {"what": "tables", "text": 1, "code": 2}
    queries: list[dict[str, Any]] = []

    def answer(_vm: VM, body: dict[str, Any]) -> dict[str, Any]:
        queries.append(body)
        return {"found": []}

    console = SimpleNamespace(wait_for=lambda _needle, _seconds: True)
    vm = cast(VM, SimpleNamespace(channel=Channel(host), console=console))
    for message in (
        Message("begun"),
        Message("inspect", query),
        Message("inspect", query),
        Message("finished", {"how": "exited", "code": 0, "leaks": []}),
    ):
        guest.sendall(encode(message))
    done = Execution(seed=0)
    Executor(cast(SnapshotLayers, None), 1.0, answer)._run_in_vm(vm, "test", 5.0, 1, done)

    assert queries == [query, query]
    assert done.phases["inspect"] >= 0
    received = Channel(guest)
    kinds = [received.receive(1).kind for _ in range(4)]
    assert kinds == ["run", "inspected", "inspected", "mark"]


@pytest.mark.parametrize(
    ("ended", "expected"),
    [(True, ChannelClosed), (False, QMPError)],
    ids=["qemu-exited", "qmp-error"],
)
def test_executor_qmp_error_after_qemu_exit_is_channel_closed(
    ended: bool, expected: type[Exception]
) -> None:
    def answer(_vm: VM, _body: dict[str, Any]) -> dict[str, Any]:
        raise QMPError("no answer")

    host, guest = socket.socketpair()
    guest.sendall(encode(Message("inspect", {})))
    vm = SimpleNamespace(channel=Channel(host), wait_exit=lambda _seconds: ended)
    executor = Executor(cast(SnapshotLayers, None), 1.0, answer)
    with pytest.raises(expected):
        executor._run_in_vm(cast(VM, vm), "test", 5.0, 1, Execution(seed=0))


class FakeCapture:
    """Records what would be saved."""

    def __init__(self, **options: bool) -> None:
        self.options = DebugOptions(**options)  # type: ignore[arg-type]  # those that are bool
        self.saved: list[tuple[str, str]] = []

    def keep(self, _vm: VM, nodeid: str, when: str) -> dict[str, bytes]:
        self.saved.append((nodeid, when))
        return {"machine.txt": b""}

    def core(self, _vm: VM, nodeid: str, why: str) -> dict[str, bytes]:
        self.saved.append((nodeid, why))
        return {CORE_NOTE: b""}


class FakeVM:
    """A VM with a scripted guest.

    Args:
        messages: what the guest sends.
        console: text on the console, which grows by `prints` when the host asks for a mark.
    """

    def __init__(self, *messages: Message, prints: str = "", ended: bool = False) -> None:
        host, self.guest = socket.socketpair()
        self.channel = Channel(host)
        for message in messages:
            self.guest.sendall(encode(message))
        self._prints, self._text, self._ended = prints, "", ended
        self.events: list[str] = []
        self.console = self

    def text(self) -> str:
        return self._text

    def wait_for(self, _needle: str, _seconds: float) -> bool:
        self._text = self._prints
        return True

    def wait_eof(self) -> None:
        pass

    def has_ended(self) -> bool:
        return self._ended

    def alive(self) -> bool:
        return "quit" not in self.events

    def wait_exit(self, _seconds: float) -> bool:
        return True

    def exit_problem(self) -> str:
        return ""

    def stderr(self) -> str:
        return ""

    def __enter__(self) -> "FakeVM":
        return self

    def __exit__(self, *_: object) -> None:
        self.events.append("closed")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.events.append(name)


def _executor(capture: FakeCapture, vm: FakeVM) -> Executor:
    layers = SimpleNamespace(restore=lambda _group, _savable: (vm, "S2"))
    return Executor(
        cast(SnapshotLayers, layers), 1.0, lambda _vm, _q: {}, cast(FailureCapture, capture)
    )


FINISHED = Message("finished", {"how": "exited", "code": 0, "leaks": []})
WARNING = "[    1.000000] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1\n"


@pytest.mark.parametrize(
    ("failed", "prints", "saved"),
    [(True, "", True), (False, "", False), (False, WARNING, True)],
    ids=["failed", "passed", "passed-with-splat"],
)
def test_machine_is_saved_before_teardown(failed: bool, prints: str, saved: bool) -> None:
    capture = FakeCapture(keep_vm=True, core_dumps=False)
    vm = FakeVM(Message("paused", {"when": "call", "failed": failed}), FINISHED, prints=prints)
    done = _executor(capture, vm).run("test", None, 5.0, 0, shared=True)
    assert capture.saved == ([("test", "call")] if saved else [])
    assert done.machine_saved is saved
    received = Channel(vm.guest)
    kinds = [received.receive(1).kind for _ in range(4)]
    assert kinds == ["run", "mark", "resume", "mark"]
    # It is not shared with later tests.
    assert vm.events[-1] == "closed"


def test_failure_after_teardown_saves_the_machine_at_its_end() -> None:
    capture = FakeCapture(keep_vm=True, core_dumps=False)
    vm = FakeVM(Message("paused", {"when": "call", "failed": False}), FINISHED)
    _executor(capture, vm).run("test", None, 5.0, 0, is_failure=lambda _done: True)
    assert capture.saved == [("test", "end")]


def test_run_without_keep_vm_asks_for_no_pause() -> None:
    vm = FakeVM(FINISHED)
    capture = FakeCapture()
    _executor(capture, vm).run("test", None, 5.0, 0, is_failure=lambda _done: True)
    order = Channel(vm.guest).receive(1)
    assert order.body["pause"] is False
    assert capture.saved == []
    assert "pause_at_shutdown" in vm.events


def test_panic_leaves_a_core_and_qemu_exits() -> None:
    vm = FakeVM(ended=True)
    vm._text = "[    1.0] Kernel panic - not syncing: sysrq triggered crash\n"
    capture = FakeCapture()
    done = _executor(capture, vm).run("test", None, 5.0, 0)
    assert capture.saved == [("test", "panic")]
    assert (done.vm_failure, done.kernel_panicked) == ("closed", True)
    assert vm.events[-2:] == ["quit", "closed"]
    assert CORE_NOTE in done.artefacts


def test_guest_that_powers_off_leaves_no_core() -> None:
    vm = FakeVM(ended=True)
    capture = FakeCapture()
    done = _executor(capture, vm).run("test", None, 5.0, 0)
    assert capture.saved == []
    assert (done.vm_failure, done.kernel_panicked) == ("closed", False)


def test_process_that_cannot_be_killed_leaves_a_core() -> None:
    vm = FakeVM(Message("finished", {"how": "stuck", "stack": ""}))
    capture = FakeCapture()
    _executor(capture, vm).run("test", None, 5.0, 0)
    assert capture.saved == [("test", "hang")]


def test_silence_is_a_timeout_with_its_whole_length() -> None:
    vm = FakeVM()
    executor = _executor(FakeCapture(), vm)
    with pytest.raises(ChannelTimeout, match="no message from the guest for"):
        executor._receive(cast(VM, vm), 0.0)


def test_repetition_leaves_the_machine_of_the_first_failure() -> None:
    capture = FakeCapture(keep_vm=True, core_dumps=False)
    vm = FakeVM(Message("paused", {"when": "call", "failed": True}), FINISHED)
    done = _executor(capture, vm).run(
        "test", None, 5.0, 0, is_failure=lambda _done: True, captured=False
    )
    assert (capture.saved, done.machine_saved) == ([], False)


@pytest.mark.parametrize(
    "error",
    [
        KernelError("kernel splat before any test: WARNING"),
        UserError("the guest's agent does not start"),
        ChannelClosed("QEMU has exited"),
        OSError(28, "No space left on device"),
        CommandError(["cp"], 1, "", "No space left on device"),
        QMPError("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_vm_that_does_not_start_is_the_verdict_of_its_test(error: Exception) -> None:
    def restore(*_: object) -> tuple[VM, str]:
        raise error

    layers = cast(SnapshotLayers, SimpleNamespace(restore=restore))
    done = Executor(layers, 1.0, lambda _vm, _q: {}).run("test", None, 5.0, 0)
    assert done.vm_failure == "infra"
    assert done.vm_failure_detail == f"cannot start a VM for the test: {error}"
