# SPDX-License-Identifier: GPL-2.0-only
"""Message exchange for one test, with a scripted guest."""

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qemu.qmp import QMPError

from fixtures.host.execution.run_test_in_vm import Execution, Executor
from fixtures.host.execution.snapshot_layers import SnapshotLayers
from fixtures.host.vm.channel import Channel, ChannelClosed
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
