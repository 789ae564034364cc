# SPDX-License-Identifier: GPL-2.0-only
"""System packages: missing ones are installed, or the command to run is printed."""

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.setup import cli, system_packages
from fixtures.host.util.errors import UserError


class Machine:
    """A fake Debian machine with some packages."""

    def __init__(self) -> None:
        self.installed = {
            name for package in system_packages.load_packages() for name in package.names
        }
        self.known: set[str] = set(self.installed)
        self.known_after_update: set[str] = set()
        self.apt: list[list[str]] = []
        self.sudo = False
        self.status = "installed"

    def run(self, argv: Sequence[str | Path], **_: Any) -> "subprocess.CompletedProcess[str]":
        """Replace ``run``."""
        program, *rest = map(str, argv)
        out, status = "", 0
        if program == "dpkg-query":
            out = "".join(f"{name} {self.status}\n" for name in rest if name in self.installed)
            out += "removed-one config-files\n"
        elif program == "apt-cache":
            for name in rest[1:]:
                candidate = "1.0" if name in self.known else "(none)"
                out += f"{name}:\n  Installed: (none)\n  Candidate: {candidate}\n"
        elif program == "sudo":
            status = 0 if self.sudo else 1
        return subprocess.CompletedProcess([program], status, out, "")

    def call(self, argv: Sequence[str], **_: Any) -> None:
        """Replace ``subprocess.run``."""
        self.apt.append(list(argv))
        if "update" in argv:
            self.known |= self.known_after_update


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a Debian machine that has every package, with root privileges."""
    fake = Machine()
    monkeypatch.setattr(system_packages, "run", fake.run)
    monkeypatch.setattr(subprocess, "run", fake.call)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return fake


def test_package_has_reason_and_file() -> None:
    assert all(package.why and package.file for package in system_packages.load_packages())


def test_complete_machine_runs_no_apt(machine: Machine) -> None:
    system_packages.install_missing()
    assert not machine.apt


@pytest.mark.parametrize("status", ["triggers-pending", "triggers-awaited"])
def test_package_that_waits_for_triggers_is_complete(machine: Machine, status: str) -> None:
    machine.status = status
    system_packages.install_missing()
    assert not machine.apt


def test_apt_waits_for_another_installation(machine: Machine) -> None:
    machine.installed.remove("bc")
    system_packages.install_missing()
    (install,) = machine.apt
    assert "DPkg::Lock::Timeout=600" in install[: install.index("install")]


def test_any_alternative_satisfies_package(machine: Machine) -> None:
    machine.installed.remove("pahole")
    system_packages.install_missing()
    assert not machine.apt


def test_first_available_alternative_is_installed(machine: Machine) -> None:
    machine.installed -= {"bpftool", "linux-tools-generic", "bc"}
    machine.known.remove("bpftool")
    system_packages.install_missing()
    (install,) = machine.apt
    assert install[-2:] == ["bc", "linux-tools-generic"]
    assert "--no-install-recommends" in install
    assert "DEBIAN_FRONTEND=noninteractive" in install


def test_stale_apt_lists_are_updated(machine: Machine) -> None:
    machine.installed.remove("bc")
    machine.known.clear()
    machine.known_after_update = {"bc"}
    system_packages.install_missing()
    assert ["update" in call for call in machine.apt] == [True, False]


def test_unavailable_package_is_an_error(machine: Machine) -> None:
    machine.installed.remove("bc")
    machine.known.clear()
    with pytest.raises(UserError, match="no package bc"):
        system_packages.install_missing()


def test_without_root_command_is_printed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.installed -= {"bc", "ccache"}
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UserError, match="run: sudo apt-get install -y bc ccache"):
        system_packages.install_missing()
    machine.sudo = True
    system_packages.install_missing()
    assert machine.apt[0][:2] == ["sudo", "-n"]


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ({"ID": "fedora"}, "run: sudo dnf install -y .*qemu-system-x86-core"),
        ({"ID": "other"}, r"qemu-system-x86_64 \(in Debian's qemu-system-x86\)"),
        ({"ID": "arch", "PRETTY_NAME": "Arch Linux"}, "^Arch Linux is not supported, only Debian"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "^opensuse-leap is not supported"),
    ],
)
def test_other_distribution_gets_install_hint(
    monkeypatch: pytest.MonkeyPatch, system: dict[str, str], line: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: system)
    with pytest.raises(UserError, match=line):
        system_packages.install_missing()


def test_optional_package_is_installed_for_its_environment_only(machine: Machine) -> None:
    machine.installed -= {"chromium", "google-chrome-stable"}
    system_packages.install_missing()
    assert not machine.apt
    system_packages.install_missing("unit")
    assert [call[-1] for call in machine.apt] == ["chromium"]


def test_unavailable_optional_package_is_reported(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.installed -= {"chromium", "google-chrome-stable"}
    machine.known.clear()
    system_packages.install_missing("unit")
    assert "continuing without chromium: this release has no package" in capsys.readouterr().err


def test_optional_package_is_ignored_on_other_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = {
        package.file for package in system_packages.load_packages() if package.optional_for is None
    }
    monkeypatch.setattr("shutil.which", lambda name, **_: name if name in present else None)
    monkeypatch.setattr(system_packages, "_is_present", lambda package: package.file in present)
    system_packages.install_missing("unit")


def test_cli_prints_one_line_and_exits_2(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    machine.installed.remove("bc")
    assert cli.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_lint_needs_no_package_of_the_vm(machine: Machine) -> None:
    machine.installed.clear()
    system_packages.install_missing("lint")
    assert [call[-1] for call in machine.apt] == ["shellcheck"]


def test_packages_of_one_environment_are_not_installed_for_others(machine: Machine) -> None:
    machine.installed -= {"shellcheck", "gnupg"}
    system_packages.install_missing()
    assert not machine.apt
    system_packages.install_missing("unit")
    assert [call[-1] for call in machine.apt] == ["gnupg"]


def test_each_of_several_environments_gets_its_packages(machine: Machine) -> None:
    machine.installed -= {"gnupg", "gcc-arm-linux-gnueabihf"}
    machine.installed -= {"lld-19", "lld-18", "lld-17"}
    assert cli.main(["series", "clang"]) == 0
    assert [call[-1] for call in machine.apt] == ["gcc-arm-linux-gnueabihf", "lld-19"]


def test_packages_are_named_before_they_are_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.installed -= {"bc", "make"}
    said: list[str] = []
    monkeypatch.setattr(system_packages, "_apt", lambda *_: said.append(capsys.readouterr().err))
    system_packages.install_missing()
    (before,) = said
    assert before.splitlines()[-1].startswith("running apt-get install for make, bc")


def test_variable_prevents_installation(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.installed.remove("bc")
    monkeypatch.setenv("FLOWMAP_INSTALL", "0")
    with pytest.raises(UserError, match="run: sudo apt-get install -y bc"):
        system_packages.install_missing()
    assert not machine.apt


@pytest.mark.parametrize(
    ("system", "machine_name", "named"),
    [("Darwin", "arm64", "macOS on arm64"), ("Linux", "aarch64", "Linux on aarch64")],
)
def test_other_platform_is_refused_in_one_line(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    system: str,
    machine_name: str,
    named: str,
) -> None:
    machine.installed.clear()
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine_name)
    assert cli.main([]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: this machine is {named}, and the suite runs on Linux on")
    assert message.count("\n") == 1
    assert not machine.apt
