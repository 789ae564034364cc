# SPDX-License-Identifier: GPL-2.0-only
"""Workers on other machines: who names them, and what they have to agree on."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.pytest_plugin import remote_workers
from fixtures.host.pytest_plugin.run_context import Context
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT

CONTEXT = Context(
    profile="base",
    machine=cast(Any, None),
    accel_reason="",
    scale=1.0,
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
    remote_workers.workers_named(cast(pytest.Config, SimpleNamespace(option=option)))
    return option


def test_without_names_the_number_of_workers_counts() -> None:
    assert _options().numprocesses == "auto"


def test_workers_on_this_machine_get_no_copy() -> None:
    option = _options("2*popen")
    assert (option.numprocesses, option.rsyncdir) == (None, [])


@pytest.mark.parametrize("spec", ["ssh=host//chdir=/tmp", "2*ssh=host", "socket=host:8888"])
def test_workers_elsewhere_get_this_project_without_what_was_built(spec: str) -> None:
    option = _options("popen", spec)
    assert option.numprocesses is None
    assert (option.rsyncdir, option.rsyncignore) == ([str(ROOT)], ["build"])


def test_preparations_of_another_checkout_are_not_used(tmp_path: Path) -> None:
    assert not remote_workers.is_here(replace(CONTEXT, scratch=tmp_path))
    assert not remote_workers.is_here(
        replace(CONTEXT, scratch=ROOT / "build/run/of-another-machine")
    )


def test_same_kernel_and_series_are_accepted() -> None:
    remote_workers.require_same(replace(CONTEXT, scratch=Path("/elsewhere")), CONTEXT)


@pytest.mark.parametrize(
    "other", [{"release": "7.3.5"}, {"profile": "debug"}, {"metadata": {"series": None}}]
)
def test_another_kernel_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"this worker has kernel .* and the run is of kernel"):
        remote_workers.require_same(replace(CONTEXT, **other), CONTEXT)


def test_artefacts_come_home_with_the_report(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "artefacts/slug").mkdir(parents=True)
    (there / "artefacts/slug/console.log").write_bytes(b"\0\xff")
    report: Any = SimpleNamespace(
        flowmap_result=json.dumps({"artefacts": ["artefacts/slug/console.log"]})
    )
    remote_workers.attach(report, there)
    remote_workers.unpack(report, here)
    assert (here / "artefacts/slug/console.log").read_bytes() == b"\0\xff"
    remote_workers.unpack(cast(Any, SimpleNamespace()), tmp_path / "none")
    assert not (tmp_path / "none").exists()
