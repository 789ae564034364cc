# SPDX-License-Identifier: GPL-2.0-only
"""Upstream's tests are taken out of a tree that is not written to, and helpers built once."""

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
    """A kernel tree with one script and one helper."""
    for name in (SCRIPT, HELPER, "include/uapi/linux/if.h"):
        path = tmp_path / "linux" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "linux"


class Make:
    """Notes what is made, and makes empty files."""

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
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Stands in for make and gcc."""
    fake = Make()
    monkeypatch.setattr(install, "run", fake)
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    return fake


def quiet(_text: str) -> None:
    """Say nothing."""


def test_scripts_can_be_run_and_helpers_are_beside_them(tree: Path, make: Make) -> None:
    folder = install.provide(tree, quiet)
    assert os.access(folder / "net/netfilter/nft_nat.sh", os.X_OK)
    assert (folder / "net/netfilter/udpclash").read_text() == "ELF"
    headers, helpers = make.called
    assert headers[-1] == "headers"
    # Only what the tree has the source of is asked for.
    assert [word for word in helpers if "conntrack" in word] == []


def test_the_second_time_nothing_is_built(tree: Path, make: Make) -> None:
    first = install.provide(tree, quiet)
    built = len(make.called)
    assert install.provide(tree, quiet) == first
    assert len(make.called) == built


@pytest.mark.parametrize("name", [SCRIPT, HELPER, "include/uapi/linux/if.h"])
def test_a_change_is_noticed(tree: Path, make: Make, name: str) -> None:
    before = install.provide(tree, quiet)
    (tree / name).write_text("changed")
    assert install.provide(tree, quiet) != before
    assert len(make.called) == 4


def test_the_tree_is_not_written_to(tree: Path, make: Make) -> None:
    before = sorted(tree.rglob("*"))
    install.provide(tree, quiet)
    assert sorted(tree.rglob("*")) == before
    outputs = [word for line in make.called for word in line if word.startswith(("O=", "OUTPUT="))]
    assert len(outputs) == 2
    assert not [word for word in outputs if str(tree) in word]


def test_what_the_compiler_says_is_passed_on(tree: Path, make: Make) -> None:
    make.fails = True
    with pytest.raises(UserError, match=r"udpclash\.c:1: error: nonsense"):
        install.provide(tree, quiet)
    make.fails = False
    install.provide(tree, quiet)  # nothing half built stayed


def test_a_tree_without_tests_is_refused(tmp_path: Path, make: Make) -> None:
    with pytest.raises(UserError, match="none of upstream's tests"):
        install.provide(tmp_path, quiet)
    assert not make.called
