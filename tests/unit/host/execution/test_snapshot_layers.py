# SPDX-License-Identifier: GPL-2.0-only
"""Snapshot layers: what is cached, and kernel or harness errors before the first test."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.execution import snapshot_layers
from fixtures.host.util.errors import InfraError, KernelError
from fixtures.host.util.paths import ROOT
from fixtures.host.vm.channel import ChannelClosed, ChannelTimeout
from fixtures.host.vm.snapshot import Snapshot
from fixtures.wire import Message

OOPS = "[    7.100000] BUG: kernel NULL pointer dereference, address: 00000000000000b0\n"


class FakeVM:
    """A VM that replies to every request but one kind; it prints something on that one."""

    def __init__(
        self, fails_at: str = "", error: InfraError | None = None, prints: str = ""
    ) -> None:
        self._fails_at, self._error, self._prints = fails_at, error, prints
        self._text = ""
        self.requests: list[str] = []
        self.killed = False
        self.channel = self.console = self

    def receive(self, _seconds: float) -> Message:
        return Message("ready")

    def text(self) -> str:
        return self._text

    def wait_eof(self) -> None:
        assert self.killed

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        pass

    def resync(self, _seconds: float) -> None:
        pass

    def request(self, message: Message, _seconds: float) -> Message:
        self.requests.append(message.kind)
        if message.kind == self._fails_at:
            self._text = self._prints
            if self._error:
                raise self._error
        if message.kind == "start":
            return Message("started", {"errors": [], "clauses": {}})
        return Message("done", {"missing": []})

    def save(self, snapshot: Snapshot) -> None:
        snapshot.directory.mkdir()

    def __enter__(self) -> "FakeVM":
        return self

    def __exit__(self, *_: object) -> None:
        pass


Make = Callable[..., snapshot_layers.SnapshotLayers]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Function that makes layers with a fake VM."""

    def made(
        vm: FakeVM, tests: str = "", *, snapshots: bool = False
    ) -> snapshot_layers.SnapshotLayers:
        monkeypatch.setattr(snapshot_layers, "VM", lambda *_: vm)
        (tmp_path / "tests").write_text(tests)
        (tmp_path / "modules").touch()
        return snapshot_layers.SnapshotLayers(
            machine=cast(Any, SimpleNamespace(snapshot_key="machine")),
            scratch=tmp_path,
            cache=tmp_path,
            tests=tmp_path / "tests",
            modules=tmp_path / "modules",
            start={},
            deadline_scale=1.0,
            snapshots=snapshots,
            log=lambda _text: None,
        )

    return made


@pytest.mark.parametrize("damaged", [None, b"", b'{"a": [', b"null"])
def test_snapshot_with_damaged_clauses_is_made_again(
    make: Make, tmp_path: Path, damaged: bytes | None
) -> None:
    make(FakeVM(), snapshots=True).clauses_by_test()
    (file,) = tmp_path.glob("snapshots/*/clauses.json")
    if damaged is None:
        file.unlink()
    else:
        file.write_bytes(damaged)
    vm = FakeVM()
    assert make(vm, snapshots=True).clauses_by_test() == {}
    assert vm.requests == ["deliver", "start"]
    vm = FakeVM()
    assert make(vm, snapshots=True).clauses_by_test() == {}
    assert vm.requests == []


@pytest.mark.parametrize("request_kind", ["deliver", "start", "features"])
@pytest.mark.parametrize(
    "error",
    [ChannelTimeout("no message for 60 s"), ChannelClosed("gone"), InfraError("failed")],
    ids=["timeout", "closed", "error"],
)
def test_failure_after_splat_is_kernel_error(
    make: Make, request_kind: str, error: InfraError
) -> None:
    with pytest.raises(KernelError, match="NULL pointer dereference"):
        make(FakeVM(request_kind, error, OOPS)).missing_features()


@pytest.mark.parametrize("request_kind", ["deliver", "start"])
def test_splat_before_first_test_is_kernel_error(make: Make, request_kind: str) -> None:
    with pytest.raises(KernelError, match="NULL pointer dereference"):
        make(FakeVM(request_kind, None, OOPS)).missing_features()


def test_splat_during_feature_check_is_no_error(make: Make) -> None:
    vm = FakeVM("features", None, OOPS)
    assert make(vm).missing_features() == []


@pytest.mark.parametrize("request_kind", ["deliver", "start", "features"])
def test_failure_without_splat_is_infra_error(make: Make, request_kind: str) -> None:
    with pytest.raises(InfraError, match="no message"):
        make(
            FakeVM(request_kind, ChannelTimeout("no message for 60 s"), "all is well\n")
        ).missing_features()


def test_same_tests_are_collected_once(make: Make) -> None:
    first, again, other = FakeVM(), FakeVM(), FakeVM()
    make(first, "some", snapshots=True).clauses_by_test()
    make(again, "some", snapshots=True).clauses_by_test()
    make(other, "others", snapshots=True).clauses_by_test()
    assert (first.requests, again.requests) == (["deliver", "start"], [])
    assert other.requests == first.requests


def test_partial_snapshot_of_killed_run_is_removed(make: Make, tmp_path: Path) -> None:
    left = tmp_path / "snapshots/machine/state.123.part"
    left.mkdir(parents=True)
    make(FakeVM(), snapshots=True).clauses_by_test()
    assert not left.exists()
    assert (tmp_path / "snapshots/machine/state").exists()


def test_read_only_cache_keeps_snapshots_in_run_directory(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    cached = tmp_path / "snapshots/machine/state"
    cached.mkdir(parents=True)
    layers = make(FakeVM(), snapshots=True)
    # Scratch and cache are the same folder here.
    assert layers._cached_snapshot("machine").directory == cached
    assert not layers._cached_snapshot("machine2").durable


def test_test_server_is_a_delivered_module_with_serve() -> None:
    """The host names the module of the guest as text: neither imports the other."""
    source = (ROOT / snapshot_layers.TEST_SERVER.replace(".", "/")).with_suffix(".py")
    assert "def serve(" in source.read_text()
