# SPDX-License-Identifier: GPL-2.0-only
"""Remote workers: --tx, the check of their kernel, and their artefacts."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.pytest_plugin import xdist_ssh_workers
from fixtures.host.pytest_plugin.run_context import RunContext
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT

CONTEXT = RunContext(
    profile="base",
    machine=cast(Any, None),
    accel_reason="",
    deadline_scale=1.0,
    scratch=Path("/nowhere"),
    cache=Path("/nowhere"),
    payload=Path("/nowhere"),
    start={},
    snapshots=True,
    vmlinux=Path("/nowhere"),
    modules=Path("/nowhere"),
    tree=None,
    metadata={"series": {"sha256": "0123456789abcdef"}},
    release="7.3.4",
    report=Path("/nowhere"),
)


def _options(*tx: str) -> SimpleNamespace:
    option = SimpleNamespace(tx=list(tx), numprocesses="auto", rsyncdir=[], rsyncignore=[])
    xdist_ssh_workers.apply_tx_option(cast(pytest.Config, SimpleNamespace(option=option)))
    return option


def test_without_tx_numprocesses_stays() -> None:
    assert _options().numprocesses == "auto"


def test_tx_popen_copies_nothing() -> None:
    option = _options("2*popen")
    assert (option.numprocesses, option.rsyncdir) == (None, [])


@pytest.mark.parametrize(
    "spec",
    ["ssh=host//chdir=/tmp", "2*ssh=host", "socket=host:8888"],
    ids=["ssh", "ssh-times-2", "socket"],
)
def test_tx_remote_copies_project_without_build_directory(spec: str) -> None:
    option = _options("popen", spec)
    assert option.numprocesses is None
    assert (option.rsyncdir, option.rsyncignore) == ([str(ROOT)], ["build"])


def test_run_directory_of_other_checkout_is_not_local(tmp_path: Path) -> None:
    assert not xdist_ssh_workers.is_local(replace(CONTEXT, scratch=tmp_path))
    assert not xdist_ssh_workers.is_local(
        replace(CONTEXT, scratch=ROOT / "build/run/of-another-machine")
    )


def test_same_kernel_and_series_is_accepted() -> None:
    xdist_ssh_workers.require_same_kernel(replace(CONTEXT, scratch=Path("/elsewhere")), CONTEXT)


@pytest.mark.parametrize(
    "other",
    [{"release": "7.3.5"}, {"profile": "debug"}, {"metadata": {"series": None}}],
    ids=["release", "profile", "series"],
)
def test_other_kernel_is_rejected(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"this worker has kernel .*, the controller has kernel"):
        xdist_ssh_workers.require_same_kernel(replace(CONTEXT, **other), CONTEXT)


def test_artefacts_are_transferred_with_the_report(tmp_path: Path) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    (remote / "artefacts/slug").mkdir(parents=True)
    (remote / "artefacts/slug/console.log").write_bytes(b"\0\xff")
    report: Any = SimpleNamespace(
        flowmap_result=json.dumps({"artefacts": ["artefacts/slug/console.log"]})
    )
    xdist_ssh_workers.attach_artefacts(report, remote)
    xdist_ssh_workers.write_artefacts(report, local)
    assert (local / "artefacts/slug/console.log").read_bytes() == b"\0\xff"
    xdist_ssh_workers.write_artefacts(cast(Any, SimpleNamespace()), tmp_path / "none")
    assert not (tmp_path / "none").exists()
