# SPDX-License-Identifier: GPL-2.0-only
"""Traces of a test, without a kernel that offers them."""

import errno
from pathlib import Path

import pytest

from fixtures.guest.core import libc
from fixtures.guest.kernel import modules
from fixtures.guest.runtime import trace_recording


def test_filter_has_loaded_functions_and_those_of_later_modules(tmp_path: Path) -> None:
    file = tmp_path / "set_ftrace_filter"
    trace_recording.set_filter(file, ["nf_flow_*", "dev_queue_xmit"], ["nf_flow_table"])
    assert file.read_text().splitlines() == [
        "nf_flow_*",
        "nf_flow_*:mod:nf_flow_table",
        "dev_queue_xmit",
        "dev_queue_xmit:mod:nf_flow_table",
    ]


def test_records_end_when_the_log_is_read_and_mention_lost_ones() -> None:
    results: list[bytes | OSError] = [
        b"6,1,2,-;first\n",
        OSError(errno.EPIPE, "overwritten"),
        b"6,9,9,-;later\n",
        BlockingIOError(),
    ]

    def read() -> bytes:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    text = "".join(trace_recording._records(read))
    assert text == "6,1,2,-;first\n(records were overwritten)\n6,9,9,-;later\n"


def test_trace_that_cannot_start_becomes_an_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_recording, "KMSG", tmp_path / "no-kmsg")
    monkeypatch.setattr(trace_recording, "DYNAMIC_DEBUG", tmp_path / "no" / "control")
    ran = []
    wanted = {"kmsg": True, "dyndbg": ["file net/*"]}
    with trace_recording.traced(wanted, 1, tmp_path):
        ran.append(True)
    assert ran
    assert "not traced" in (tmp_path / "kmsg.txt").read_text()
    assert "control" in (tmp_path / "dyndbg.txt").read_text()


def test_debug_messages_of_later_modules_are_enabled_by_modprobe_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, options = tmp_path / "control", tmp_path / "modprobe.d/options.conf"
    monkeypatch.setattr(trace_recording, "DYNAMIC_DEBUG", control)
    monkeypatch.setattr(trace_recording, "MODPROBE_OPTIONS", options)
    monkeypatch.setattr(trace_recording, "module_names", lambda: ["nf_flow_table"])
    monkeypatch.setattr(modules, "EXTRA_PARAMETERS", tmp_path / "parameters")
    loaded: list[bytes] = []
    monkeypatch.setattr(libc, "syscall", lambda *args: loaded.append(args[2]))
    monkeypatch.setattr(modules, "module_path", lambda _name: tmp_path)
    modules.load("m")
    with trace_recording._debug_messages(["file net/netfilter/*"]):
        modules.load("m", "a=1")
        assert control.read_text() == "file net/netfilter/* +p\n"
        assert options.read_text() == ('options nf_flow_table dyndbg="file net/netfilter/* +p"\n')
    assert control.read_text() == "file net/netfilter/* -p\n"
    assert not options.exists()
    modules.load("m")
    assert loaded == [b"", b'a=1 dyndbg="file net/netfilter/* +p"', b""]


def test_names_of_compressed_modules_have_no_suffix(tmp_path: Path) -> None:
    index = tmp_path / "modules.dep"
    index.write_text(
        "kernel/net/nf_flow_table.ko.xz: kernel/net/nf_conntrack.ko.zst\n"
        "kernel/net/nf-conntrack.ko.zst:\nkernel/net/dummy.ko:\n"
    )
    assert trace_recording.module_names(index) == ["nf_flow_table", "nf_conntrack", "dummy"]
