# SPDX-License-Identifier: GPL-2.0-only
"""The conversation about one test, with a guest that is a script."""

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qemu.qmp import QMPError

from fixtures.host.execution.executor import Execution, Executor
from fixtures.host.execution.snapshot_layers import Layers
from fixtures.host.vm.channel import Channel, ChannelClosed
from fixtures.host.vm.qemu_process import VM
from fixtures.wire import Message, encode


def test_question_of_a_test_is_answered_and_its_time_is_kept_apart() -> None:
    here, there = socket.socketpair()
    question = {"what": "tables", "text": 1, "code": 2}
    asked: list[dict[str, Any]] = []

    def inspect(_vm: VM, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        return {"found": []}

    console = SimpleNamespace(wait_for=lambda _needle, _seconds: True)
    machine = cast(VM, SimpleNamespace(channel=Channel(here), console=console))
    for message in (
        Message("begun"),
        Message("inspect", question),
        Message("inspect", question),
        Message("finished", {"how": "exited", "code": 0, "leaks": []}),
    ):
        there.sendall(encode(message))
    done = Execution(seed=0)
    Executor(cast(Layers, None), 1.0, inspect)._converse(machine, "test", 5.0, 1, done)

    assert asked == [question, question]
    assert done.phases["inspect"] >= 0
    guest = Channel(there)
    kinds = [guest.receive(1).kind for _ in range(4)]
    assert kinds == ["run", "inspected", "inspected", "mark"]


@pytest.mark.parametrize(
    ("ended", "expected"), [(True, ChannelClosed), (False, QMPError)], ids=["gone", "refuses"]
)
def test_machine_that_ends_while_it_is_read_is_not_the_suites_fault(
    ended: bool, expected: type[Exception]
) -> None:
    def inspect(_vm: VM, _body: dict[str, Any]) -> dict[str, Any]:
        raise QMPError("no answer")

    here, there = socket.socketpair()
    there.sendall(encode(Message("inspect", {})))
    machine = SimpleNamespace(channel=Channel(here), wait_exit=lambda _seconds: ended)
    executor = Executor(cast(Layers, None), 1.0, inspect)
    with pytest.raises(expected):
        executor._converse(cast(VM, machine), "test", 5.0, 1, Execution(seed=0))
