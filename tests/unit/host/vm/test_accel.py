# SPDX-License-Identifier: GPL-2.0-only
"""Selection of the accelerator: KVM only after a guest has booted under it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.util.errors import UserError
from fixtures.host.vm import accel
from fixtures.host.vm.qemu_args import MachineConfig

MACHINE = MachineConfig(Path("k"), "k1", Path("r"), "r1", "tcg", 1024, 2, ())
Choose = Callable[[str], tuple[str, str]]


@pytest.fixture
def kvm_results(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Results of booting under KVM, in order; the test fills the list."""
    results: list[str | None] = []
    monkeypatch.setattr(accel, "_try_kvm", lambda *_: results.pop(0))
    monkeypatch.setattr(accel, "_cache_key", lambda _: "boot 1")
    monkeypatch.setattr(accel, "device_problem", lambda: None)
    return results


@pytest.fixture
def choose(tmp_path: Path) -> Choose:
    return lambda wanted: accel.choose_accelerator(
        wanted, MACHINE, tmp_path, tmp_path, lambda _: None
    )


def test_accel_tcg_boots_no_guest(choose: Choose, kvm_results: list[str | None]) -> None:
    assert choose("tcg") == ("tcg", "selected by --accel tcg")
    assert kvm_results == []


def test_accel_auto_with_working_kvm_selects_kvm(
    choose: Choose, kvm_results: list[str | None]
) -> None:
    kvm_results.append(None)
    assert choose("auto")[0] == "kvm"


def test_accel_auto_with_broken_kvm_gives_reason_and_caches_it(
    choose: Choose, kvm_results: list[str | None]
) -> None:
    kvm_results.append("it printed nothing for 8 s")
    assert choose("auto") == ("tcg", "it printed nothing for 8 s")
    assert choose("auto") == ("tcg", "it printed nothing for 8 s")


def test_accel_kvm_with_broken_kvm_fails_and_retries_each_time(
    choose: Choose, kvm_results: list[str | None]
) -> None:
    kvm_results += ["broken", "still broken", None]
    with pytest.raises(UserError, match="broken"):
        choose("kvm")
    with pytest.raises(UserError, match="still broken"):
        choose("kvm")
    assert choose("kvm")[0] == "kvm"


def test_inaccessible_device_is_looked_at_in_every_run(
    choose: Choose, kvm_results: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(accel, "device_problem", lambda: "/dev/kvm is not accessible to this user")
        assert choose("auto") == ("tcg", "/dev/kvm is not accessible to this user")
    kvm_results.append(None)
    assert choose("auto")[0] == "kvm"


def testdevice_problem_names_cause(tmp_path: Path) -> None:
    assert accel.device_problem(tmp_path / "kvm") == "/dev/kvm does not exist"
    (tmp_path / "kvm").touch()
    assert accel.device_problem(tmp_path / "kvm") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "boot 1"}'])
def test_damaged_kvm_result_is_replaced(
    choose: Choose, kvm_results: list[str | None], tmp_path: Path, content: str
) -> None:
    (tmp_path / "kvm.json").write_text(content)
    kvm_results.append(None)
    assert choose("auto")[0] == "kvm"
    assert choose("auto")[0] == "kvm"


def test_unwritable_cache_keeps_no_kvm_result(
    kvm_results: list[str | None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    kvm_results += [None, None]
    for _ in range(2):
        chosen = accel.choose_accelerator(
            "auto", MACHINE, tmp_path / "file", tmp_path, lambda _: None
        )
        assert chosen[0] == "kvm"


def test_foreign_guest_is_emulated(tmp_path: Path) -> None:
    machine = replace(MACHINE, arch="s390x")
    name, reason = accel.choose_accelerator("auto", machine, tmp_path, tmp_path, print)
    assert (name, reason) == ("tcg", "the guest is s390x, which this machine can only emulate")
    with pytest.raises(UserError, match="this machine is no s390x"):
        accel.choose_accelerator("kvm", machine, tmp_path, tmp_path, print)
