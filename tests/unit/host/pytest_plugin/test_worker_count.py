# SPDX-License-Identifier: GPL-2.0-only
"""``-n auto``: xdist and the check of the memory use the same number, by CPUs and memory."""

import dataclasses
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.pytest_plugin import controller, worker_count
from fixtures.host.pytest_plugin.worker_count import auto_worker_count, require_memory
from fixtures.host.util.errors import UserError
from fixtures.host.util.host_limits import HostLimits
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, Harness

pytest_plugins = ["pytester"]

BASE = vm_profile.load_profile("base")
PROFILE = dataclasses.replace(BASE, vm=dataclasses.replace(BASE.vm, memory_mib=1024))


def limits(cpus: int, memory_mib: int, memory_by: str = "host") -> HostLimits:
    """Return limits of a machine."""
    return HostLimits(cpus, memory_mib, "host", memory_by)


@pytest.mark.parametrize(
    ("cpus", "memory_mib", "expected"),
    [(16, 16 << 10, 12), (2, 16 << 10, 2), (16, 8 << 10, 6), (4, 1024, 1), (1, 100, 1)],
)
def test_auto_fits_cpus_and_memory(cpus: int, memory_mib: int, expected: int) -> None:
    assert auto_worker_count(PROFILE, limits(cpus, memory_mib)) == expected


@pytest.mark.parametrize("memory_mib", [2048, 8192, 65536])
def test_auto_count_passes_memory_check(memory_mib: int) -> None:
    machine = limits(64, memory_mib)
    require_memory(PROFILE, auto_worker_count(PROFILE, machine), machine)


def test_too_little_memory_is_one_line() -> None:
    with pytest.raises(UserError, match=r"3 workers needs 3072 .* 2000 MiB are .*: use a smaller"):
        require_memory(PROFILE, 3, limits(4, 2000))
    with pytest.raises(UserError, match=r"1 worker needs .* available in this cgroup: end other"):
        require_memory(PROFILE, 1, limits(4, 500, "cgroup"))


def config(numprocesses: object, most: int | None = None) -> pytest.Config:
    """Return a configuration with the options of xdist."""
    made = SimpleNamespace(
        option=SimpleNamespace(numprocesses=numprocesses, maxprocesses=most),
        getoption=lambda _: None,
    )
    made.hook = SimpleNamespace(
        pytest_xdist_auto_num_workers=lambda config: worker_count.choose_auto_workers(config)
    )
    return cast(pytest.Config, made)


@pytest.mark.parametrize(
    ("numprocesses", "most", "expected"),
    [(None, None, 1), (0, None, 1), (3, None, 3), ("auto", None, 5), ("auto", 2, 2), (3, 2, 2)],
)
def test_worker_count_is_that_of_xdist(
    monkeypatch: pytest.MonkeyPatch, numprocesses: object, most: int | None, expected: int
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    monkeypatch.setattr(worker_count, "read_limits", lambda: limits(5, 1 << 20))
    assert worker_count.worker_count(config(numprocesses, most)) == expected


def test_environment_variable_of_xdist_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "7")
    assert worker_count.choose_auto_workers(config("auto")) is None


def test_memory_is_required_for_the_workers_that_start(
    harness: Harness, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    required: list[int] = []
    monkeypatch.setattr(controller, "require_memory", lambda _, workers: required.append(workers))
    for tests in ("selftests", "selftests/test_guest.py::test_passes"):
        pytester.runpytest_inprocess(*PLUGINS, "-n", "8", tests, no_reraise_ctrlc=True)
    assert required == [2, 1]
    assert harness.events
