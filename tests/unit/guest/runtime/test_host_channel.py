# SPDX-License-Identifier: GPL-2.0-only
"""A test's process asks the host through the process that serves it."""

import os
import socket
import threading
from typing import Any, cast

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.kernel.drgn_client import KernelMemory
from fixtures.guest.runtime.agent import Port
from fixtures.guest.runtime.host_channel import HostLine, write
from fixtures.guest.runtime.test_server import Child, Server
from fixtures.host.vm.channel import Channel
from fixtures.wire import Message

LARGE = "x" * (1 << 18)  # more than a pipe holds


class Asking:
    """A server whose tests ask one question and report the answer's size."""

    def in_child(self, line: HostLine, _stack: int) -> None:
        """What a test's process does instead of a test."""
        code = 1
        try:
            answer = line.ask(line.receive().body)
            line.send(Message("report", {"size": len(answer["found"])}))
            code = 0
        finally:
            os._exit(code)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_question_and_answer_pass_through_the_server() -> None:
    host, guest = socket.socketpair()
    port, channel = Port(guest.fileno()), Channel(host)
    child = Child(cast(Server, Asking()))
    child.begin(Message("run", {"what": "tables"}))

    def serve() -> None:
        while child.relay(port):
            pass

    serving = threading.Thread(target=serve)
    serving.start()
    assert channel.receive(10) == Message("inspect", {"what": "tables"})
    channel.send(Message("inspected", {"found": LARGE}))
    assert channel.receive(10) == Message("report", {"size": len(LARGE)})
    serving.join(10)
    assert child.reap()[0] == 0
    child.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_child_that_gets_no_test_goes() -> None:
    child = Child(cast(Server, Asking()))
    child.dismiss()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)


def test_end_of_the_line_is_an_error() -> None:
    out, back = os.pipe(), os.pipe()
    os.close(back[1])
    with pytest.raises(EOFError):
        HostLine(out[1], back[0]).ask({})
    for fd in (*out, back[0]):
        os.close(fd)


def test_reader_that_is_gone_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        write(writing, Message("inspected"))
    os.close(writing)


def _entry(**changed: Any) -> dict[str, Any]:
    return {
        "flow": 0xFFFF888000001000,
        "flow_namespace": 4026531840,
        "snoopers": 1,
        "flags": 1,
        "bucket": 0x1000,
        "direction": 0,
        "src": "c0000202" + 24 * "0",
        "dst": "c6336402" + 24 * "0",
        "src_port": 40000,
        "dst_port": 7000,
        "iifindex": 21,
        "l3proto": 2,
        "l4proto": 17,
        "encap": [[7, 0x8100], [0, 0]],
        "tun_src": 32 * "0",
        "tun_dst": 32 * "0",
        "tun_l4proto": 0,
        **changed,
    }


@pytest.fixture
def _known_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.guest.kernel.drgn_client._place", lambda: {"text": 1, "code": 2})


@pytest.mark.usefixtures("_known_place")
def test_entries_have_the_keys_that_find_them() -> None:
    table = {"kind": "snoop", "namespace": 1, "map": 3, "count": 1, "ordered": 1, "missed": 0}
    asked: list[dict[str, Any]] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        asked.append(question)
        return {"found": [{**table, "buckets": 64, "entries": [_entry()]}]}

    found = KernelMemory(answer).table_of(3)
    (entry,) = found.entries
    assert (found.buckets, entry.bucket) == (64, 0x1000)
    assert asked == [{"what": "tables", "text": 1, "code": 2}]
    expected = uapi.key(17, "192.0.2.2", "198.51.100.2", 40000, 7000, 21, layers=[(7, 0x8100)])
    assert bytes(entry.key) == bytes(expected)


@pytest.mark.usefixtures("_known_place")
def test_host_that_cannot_read_skips_and_corrupt_memory_fails() -> None:
    with pytest.raises(pytest.skip.Exception, match="no DWARF"):
        KernelMemory(lambda _: {"unavailable": "vmlinux has no DWARF"}).tables()
    with pytest.raises(AssertionError, match="loops"):
        KernelMemory(lambda _: {"error": "Corrupt: loops"}).tables()
