# SPDX-License-Identifier: GPL-2.0-only
"""Upstream's BPF tests: a copy has the wanted tests only, and what does not compile is listed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.flowmap.series import BPF_TEST_FILES
from fixtures.host.kselftest import bpf_tests
from fixtures.host.util.errors import UserError
from fixtures.host.util.subprocess_util import CommandError

BPF = "tools/testing/selftests/bpf"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A kernel tree with the wanted tests and one other, whose programs are others."""
    files = {f"{BPF}/prog_tests/{name}.c": f'#include "{name}.skel.h"' for name in BPF_TEST_FILES}
    files |= {f"{BPF}/progs/{name}.c": "" for name in BPF_TEST_FILES}
    files |= {
        f"{BPF}/prog_tests/arena.c": '#include "arena.skel.h"',
        f"{BPF}/progs/arena.c": "",
        f"{BPF}/progs/helper.h": "",
        f"{BPF}/progs/percpu.c": "",
        f"{BPF}/map_tests/stats.c": '#include "percpu.skel.h"',
        f"{BPF}/progs/inner.c": "",
        f"{BPF}/test_maps.c": 'open("./inner.bpf.o");',
        "drivers/net/veth.c": "",
        "tools/lib/bpf/libbpf.c": "",
    }
    for name, content in files.items():
        path = tmp_path / "linux" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "linux"


def files(folder: Path) -> set[str]:
    """Return the paths of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_copy_has_wanted_tests_and_their_programs(tree: Path, tmp_path: Path) -> None:
    before = files(tree)
    bpf_tests.copy_wanted(tree, tmp_path / "copy")
    assert files(tree) - files(tmp_path / "copy") == {
        f"{BPF}/prog_tests/arena.c",
        f"{BPF}/progs/arena.c",
        "drivers/net/veth.c",
    }
    assert files(tree) == before


def test_tree_without_wanted_test_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / BPF / "prog_tests/map_init.c").unlink()
    with pytest.raises(UserError, match=r"no .*/prog_tests/map_init\.c"):
        bpf_tests.copy_wanted(tree, tmp_path / "copy")


@pytest.fixture
def with_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine has the compiler."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


@pytest.mark.usefixtures("with_clang")
def test_files_that_do_not_compile_are_listed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(argv: Sequence[str | Path]) -> "subprocess.CompletedProcess[str]":
        for word in map(str, argv[-2:]):
            Path(word).write_text("ELF")
        (Path(str(argv[-1])).parent / "map_init.bpf.o").write_text("BPF")
        said = "  SKIP-TEST    xdp_flowtable.test.o\n"
        return subprocess.CompletedProcess([], 0, "  BINARY   test_progs\n", said)

    monkeypatch.setattr(bpf_tests, "run", make)
    (tmp_path / "scratch").mkdir()
    target = tmp_path / "target"
    left_out = bpf_tests.build_bpf_tests(tree, Path("vmlinux"), tmp_path / "scratch", target)
    assert left_out == ["xdp_flowtable.test.o"]
    assert files(target) == {"test_progs", "test_maps", "map_init.bpf.o"}


@pytest.mark.usefixtures("with_clang")
def test_failed_build_is_one_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(argv: Sequence[str | Path], **_: Any) -> None:
        raise CommandError([str(word) for word in argv], 2, "", "x.c:1: error: no such type\n")

    monkeypatch.setattr(bpf_tests, "run", make)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(UserError, match=r"BPF tests do not build: .*no such type"):
        bpf_tests.build_bpf_tests(tree, Path("vmlinux"), tmp_path / "scratch", tmp_path / "target")


def test_absent_compiler_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UserError, match="install the package clang-19"):
        bpf_tests.build_bpf_tests(tree, Path("vmlinux"), tmp_path, tmp_path / "target")
