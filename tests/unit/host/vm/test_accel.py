# SPDX-License-Identifier: GPL-2.0-only
"""The choice of the accelerator: KVM is believed when a guest ran, and not before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.host.util.errors import UserError
from fixtures.host.vm import accel
from fixtures.host.vm.qemu_args import Machine

MACHINE = Machine(Path("k"), "k1", Path("r"), "r1", "tcg", 1024, 2, ())
Choose = Callable[[str], tuple[str, str]]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What trials of KVM give, one after the other."""
    answers: list[str | None] = []
    monkeypatch.setattr(accel, "_why_not", lambda *_: answers.pop(0))
    monkeypatch.setattr(accel, "_this_boot", lambda _: "boot 1")
    return answers


@pytest.fixture
def choose(tmp_path: Path) -> Choose:
    return lambda wanted: accel.choose(wanted, MACHINE, tmp_path, tmp_path, lambda _: None)


def test_tcg_needs_no_trial(choose: Choose, trial: list[str | None]) -> None:
    assert choose("tcg") == ("tcg", "asked for")
    assert trial == []


def test_auto_takes_kvm_that_works(choose: Choose, trial: list[str | None]) -> None:
    trial.append(None)
    assert choose("auto")[0] == "kvm"


def test_auto_says_why_not_and_remembers(choose: Choose, trial: list[str | None]) -> None:
    trial.append("it printed nothing for 8 s")
    assert choose("auto") == ("tcg", "it printed nothing for 8 s")
    assert choose("auto") == ("tcg", "it printed nothing for 8 s")


def test_kvm_fails_loudly_and_tries_each_time(choose: Choose, trial: list[str | None]) -> None:
    trial += ["broken", "still broken", None]
    with pytest.raises(UserError, match="broken"):
        choose("kvm")
    with pytest.raises(UserError, match="still broken"):
        choose("kvm")
    assert choose("kvm")[0] == "kvm"
