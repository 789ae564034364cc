# SPDX-License-Identifier: GPL-2.0-only
"""Installation of kselftests: the tree is not written to, and programs are built once."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.kselftest import install
from fixtures.host.util.errors import UserError
from fixtures.host.util.subprocess_util import CommandError

SCRIPT = "tools/testing/selftests/net/netfilter/nft_nat.sh"
HELPER = "tools/testing/selftests/net/netfilter/udpclash.c"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A kernel tree with one script and one C program."""
    for name in (SCRIPT, HELPER, "include/uapi/linux/if.h"):
        path = tmp_path / "linux" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "linux"


class FakeMake:
    """Records the calls of make, and writes fake programs."""

    def __init__(self) -> None:
        self.called: list[list[str]] = []
        self.fails = False

    def __call__(self, argv: Sequence[str | Path], **_: Any) -> "subprocess.CompletedProcess[str]":
        words = [str(word) for word in argv]
        if words[0] == "make":
            self.called.append(words)
            if self.fails:
                raise CommandError(words, 2, "", "udpclash.c:1: error: nonsense\n")
            for word in words:
                if word.endswith("/udpclash"):
                    Path(word).write_text("ELF")
        return subprocess.CompletedProcess(words, 0, "gcc 12\n", "")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMake:
    """Replaces make and gcc."""
    fake = FakeMake()
    monkeypatch.setattr(install, "run", fake)
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    return fake


def ignore(_text: str) -> None:
    """Ignore a progress message."""


def test_scripts_are_executable_and_programs_are_built(tree: Path, make: FakeMake) -> None:
    folder = install.install_kselftests(tree, ignore)
    assert os.access(folder / "net/netfilter/nft_nat.sh", os.X_OK)
    assert (folder / "net/netfilter/udpclash").read_text() == "ELF"
    headers, programs = make.called
    assert headers[-1] == "headers"
    # Programs without a source file in the tree are not requested.
    assert [word for word in programs if "conntrack" in word] == []


def test_tree_with_in_tree_build_is_refused_in_one_line(tree: Path, make: FakeMake) -> None:
    (tree / ".config").touch()
    with pytest.raises(UserError, match=r"in-tree build .*make mrproper") as error:
        install.install_kselftests(tree, ignore)
    assert "\n" not in str(error.value)
    assert make.called == []


def test_second_call_builds_nothing(tree: Path, make: FakeMake) -> None:
    first = install.install_kselftests(tree, ignore)
    built = len(make.called)
    assert install.install_kselftests(tree, ignore) == first
    assert len(make.called) == built


@pytest.mark.parametrize("name", [SCRIPT, HELPER, "include/uapi/linux/if.h"])
def test_changed_input_is_rebuilt(tree: Path, make: FakeMake, name: str) -> None:
    before = install.install_kselftests(tree, ignore)
    (tree / name).write_text("changed")
    assert install.install_kselftests(tree, ignore) != before
    assert len(make.called) == 4


def test_tree_is_not_written_to(tree: Path, make: FakeMake) -> None:
    before = sorted(tree.rglob("*"))
    install.install_kselftests(tree, ignore)
    assert sorted(tree.rglob("*")) == before
    outputs = [word for line in make.called for word in line if word.startswith(("O=", "OUTPUT="))]
    assert len(outputs) == 2
    assert not [word for word in outputs if str(tree) in word]


def test_compiler_error_is_reported(tree: Path, make: FakeMake) -> None:
    make.fails = True
    with pytest.raises(UserError, match=r"udpclash\.c:1: error: nonsense"):
        install.install_kselftests(tree, ignore)
    make.fails = False
    install.install_kselftests(tree, ignore)  # the failed build left nothing behind


def test_tree_without_kselftests_is_rejected(tmp_path: Path, make: FakeMake) -> None:
    with pytest.raises(UserError, match="no kselftests in"):
        install.install_kselftests(tmp_path, ignore)
    assert not make.called
