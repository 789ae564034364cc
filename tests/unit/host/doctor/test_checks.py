# SPDX-License-Identifier: GPL-2.0-only
"""The doctor: each problem has a remedy, and nothing is changed."""

import platform
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.doctor import checks, cli
from fixtures.host.doctor.checks import CHECKS, Machine, Status
from fixtures.host.kernel import resource_check, toolchain
from fixtures.host.setup import system_packages
from fixtures.host.util.errors import UserError
from fixtures.host.util.host_limits import HostLimits
from tests.unit.host.util.small_file_system import small_file_system

GOOD = HostLimits(4, 16 << 10, "host", "host")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with enough of everything, and KVM."""
    (tmp_path / "kvm").touch()
    return Machine(tmp_path / "cache", GOOD, tmp_path / "kvm")


def test_every_problem_and_warning_has_a_remedy(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise UserError("no such program; install the package")

    package = system_packages.load_packages()[0]
    monkeypatch.setattr(system_packages, "missing_packages", lambda: [package])
    monkeypatch.setattr(toolchain, "require_tools", missing)
    monkeypatch.setattr(checks, "qemu_version", missing)
    monkeypatch.setattr(checks, "find_bpftool", missing)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(resource_check, "CLEAN_BUILD_DISK_GIB", 1e9)
    monkeypatch.setattr(resource_check, "INCREMENTAL_BUILD_DISK_GIB", 1e9)
    bad = Machine(
        machine.cache / "a b", HostLimits(1, 100, "affinity", "cgroup"), machine.cache / "absent"
    )
    results = {check(bad).name: check(bad) for check in CHECKS}
    fine = results.pop("permissions")
    assert fine.status is Status.OK
    assert {name for name, result in results.items() if not result.remedy} == set()
    warnings = {name for name, result in results.items() if result.status is Status.WARNING}
    assert warnings == {"KVM", "CPUs"}
    assert not machine.cache.exists()


@pytest.mark.parametrize(
    ("memory_mib", "status"),
    [(500, Status.PROBLEM), (2000, Status.WARNING), (8000, Status.OK)],
)
def test_memory_for_vm_and_build(machine: Machine, memory_mib: int, status: Status) -> None:
    limited = replace(machine, limits=replace(GOOD, memory_mib=memory_mib, memory_by="cgroup"))
    result = checks.check_memory(limited)
    assert result.status is status
    assert "limited by cgroup" in result.found


def test_kvm_that_user_cannot_open_names_group(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.check_kvm(machine).status is Status.OK
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "usermod -aG kvm" in checks.check_kvm(machine).remedy
    assert "--device /dev/kvm" in checks.check_kvm(replace(machine, kvm=Path("/absent"))).remedy


def test_old_qemu_is_a_warning(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, status in (("6.2.0", Status.WARNING), ("7.2.1", Status.OK), ("10.0", Status.OK)):
        text = f"QEMU emulator version {version} (Debian)"
        monkeypatch.setattr(checks, "qemu_version", lambda text=text: text)
        assert checks.check_qemu(machine).status is status


def test_full_disk_names_cache_command(machine: Machine, tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", 64) as small:
        result = checks.check_disk(replace(machine, cache=small / "cache"))
    assert result.status is Status.PROBLEM
    assert "tox -e cache -- list" in result.remedy


def test_unwritable_cache_is_a_problem(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = checks.check_permissions(replace(machine, cache=tmp_path / "file/cache"))
    assert result.status is Status.PROBLEM
    assert "FLOWMAP_CACHE" in result.remedy


@pytest.mark.parametrize(
    ("statuses", "exit_status", "last"),
    [
        ([Status.OK], 0, "the suite can run here"),
        ([Status.OK, Status.WARNING], 0, "the suite can run here; 1 warnings"),
        ([Status.PROBLEM, Status.WARNING], 1, "1 of 2 checks found a problem"),
    ],
)
def test_exit_status_tells_whether_suite_can_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statuses: list[Status],
    exit_status: int,
    last: str,
) -> None:
    found = [checks.Result("disk", status, "found", "do this") for status in statuses]
    monkeypatch.setattr(cli, "CHECKS", [lambda _, each=each: each for each in found])
    assert cli.main([]) == exit_status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    assert lines[1].strip() == "remedy: do this"


def test_doctor_on_this_machine_runs_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) in (0, 1)
    assert len(capsys.readouterr().out.splitlines()) > len(CHECKS)
