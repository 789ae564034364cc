# SPDX-License-Identifier: GPL-2.0-only
"""A test process queries the host through the pytest server that forked it."""

import os
import socket
import threading
from typing import Any, cast

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.kernel.drgn_client import DrgnClient
from fixtures.guest.runtime.forked_test_channel import HostChannel, write_message
from fixtures.guest.runtime.pytest_server import ForkedTest, PytestServer
from fixtures.guest.runtime.virtio_port import VirtioPort
from fixtures.host.vm.channel import Channel
from fixtures.wire import Message

LARGE = "x" * (1 << 18)  # more than a pipe holds


class QueryingServer:
    """A server whose tests query the host once and report the size of the answer."""

    def run_in_child(self, channel: HostChannel, _stack: int) -> None:
        """Query the host instead of running a test."""
        code = 1
        try:
            answer = channel.query(channel.receive().body)
            channel.send(Message("report", {"size": len(answer["found"])}))
            code = 0
        finally:
            os._exit(code)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_query_and_answer_are_relayed_by_server() -> None:
    host, guest = socket.socketpair()
    port, channel = VirtioPort(guest.fileno()), Channel(host)
    child = ForkedTest(cast(PytestServer, QueryingServer()))
    child.start(Message("run", {"what": "tables"}))

    def relay_all() -> None:
        while child.relay(port):
            pass

    relaying = threading.Thread(target=relay_all)
    relaying.start()
    assert channel.receive(10) == Message("inspect", {"what": "tables"})
    channel.send(Message("inspected", {"found": LARGE}))
    assert channel.receive(10) == Message("report", {"size": len(LARGE)})
    relaying.join(10)
    assert child.reap()[0] == 0
    child.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_discarded_child_exits() -> None:
    child = ForkedTest(cast(PytestServer, QueryingServer()))
    child.discard()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)


def test_query_on_closed_channel_raises_eoferror() -> None:
    out, back = os.pipe(), os.pipe()
    os.close(back[1])
    with pytest.raises(EOFError):
        HostChannel(out[1], back[0]).query({})
    for fd in (*out, back[0]):
        os.close(fd)


def test_write_to_closed_pipe_raises_brokenpipeerror() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with pytest.raises(BrokenPipeError):
        write_message(write_fd, Message("inspected"))
    os.close(write_fd)


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
        "zone": 9,
        "encap": [[7, 0x8100], [0, 0]],
        "tun_src": 32 * "0",
        "tun_dst": 32 * "0",
        "tun_l4proto": 0,
        **changed,
    }


@pytest.fixture
def _known_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fixtures.guest.kernel.drgn_client._kernel_addresses", lambda: {"text": 1, "code": 2}
    )


@pytest.mark.usefixtures("_known_addresses")
def test_snoop_entry_has_flow_map_key() -> None:
    table = {"kind": "snoop", "namespace": 1, "map": 3, "count": 1, "missed": 0}
    queries: list[dict[str, Any]] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        queries.append(question)
        return {"found": [{**table, "buckets": 64, "entries": [_entry()]}]}

    found = DrgnClient(answer).snoop_table_of(3)
    (entry,) = found.entries
    assert (found.bucket_count, entry.bucket_address) == (64, 0x1000)
    assert queries == [{"what": "tables", "text": 1, "code": 2}]
    expected = uapi.make_key(
        17, "192.0.2.2", "198.51.100.2", 40000, 7000, 21, encap=[(7, 0x8100)], zone=9
    )
    assert bytes(entry.key) == bytes(expected)


@pytest.mark.usefixtures("_known_addresses")
def test_unavailable_memory_skips_and_corrupt_memory_fails() -> None:
    with pytest.raises(pytest.skip.Exception, match="no DWARF"):
        DrgnClient(lambda _: {"unavailable": "vmlinux has no DWARF"}).tables()
    with pytest.raises(AssertionError, match="loops"):
        DrgnClient(lambda _: {"error": "Corrupt: loops"}).tables()
