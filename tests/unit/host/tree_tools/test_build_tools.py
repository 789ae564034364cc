# SPDX-License-Identifier: GPL-2.0-only
"""bpftool and libbpf of the tree: built once for equal sources, from the patched sources."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel import toolchain
from fixtures.host.kernel.kernel_cli_options import KernelOptions
from fixtures.host.kernel.patch_series import PatchSeries
from fixtures.host.kernel.patched_sources import PatchedSources, choose_sources
from fixtures.host.kernel.sources.debian import DebianSource
from fixtures.host.tree_tools import build_tools
from fixtures.host.util.errors import BuildFailedError
from fixtures.host.util.progress import Progress, SilentProgress
from fixtures.host.util.subprocess_util import CommandError

PROFILE = vm_profile.load_profile("unpatched").kernel
PROGRAM, HELPER, REMOVED = "tools/bpf/bpftool/map.c", "tools/lib/string.c", "tools/lib/old.c"


def edit(name: str, old: str, new: str) -> bytes:
    """Return the part of a patch that replaces the only line of a file."""
    return (
        f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-{old}\n+{new}\n"
    ).encode()


class FakeMake:
    """Records what make finds in its sources, and writes fake programs."""

    def __init__(self) -> None:
        self.sources: list[dict[str, str]] = []
        self.fails = False

    def __call__(self, argv: Sequence[str | Path], **_: Any) -> "subprocess.CompletedProcess[str]":
        words = [str(word) for word in argv]
        if words[0] == "make":
            if self.fails:
                raise CommandError(words, 2, "", "map.c:1: error: nonsense\n")
            top = Path(words[words.index("-C") + 1])
            while top.name != "src":
                top = top.parent
            self.sources.append(
                {str(f.relative_to(top)): f.read_text() for f in top.rglob("*") if f.is_file()}
            )
            Path(words[-1]).write_text("ELF")
            if words[-1].endswith(".so"):
                Path(f"{words[-1]}.1").symlink_to(words[-1])
        elif words[0] == "strip":
            Path(words[2]).write_bytes(Path(words[3]).read_bytes())
        return subprocess.CompletedProcess(words, 0, "", "")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMake:
    """Replaces make and strip; the cache is empty."""
    fake = FakeMake()
    monkeypatch.setattr(build_tools, "run", fake)
    monkeypatch.setattr(toolchain, "versions", lambda: {"compiler": "gcc 1"})
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    return fake


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a kernel tree without git."""
    folder = tmp_path / "linux"
    for name in ("Kconfig", "Kbuild", "scripts/kconfig/Makefile", "kernel/core.c", REMOVED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    for name in (PROGRAM, HELPER, "kernel/bpf/disasm.c", "scripts/bpf_doc.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old\n")
    (folder / "scripts/bpf_doc.py").chmod(0o755)
    (folder / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
    return folder


@pytest.fixture
def provide(make: FakeMake, tree: Path) -> Callable[[], Path | None]:  # noqa: ARG001
    """Return the tools of the tree."""
    return lambda: build_tools.provide_tree_tools(
        PROFILE, KernelOptions(tree=tree), SilentProgress()
    )


def test_tools_are_built_once(make: FakeMake, provide: Callable[[], Path | None]) -> None:
    first = provide()
    assert first
    assert sorted(path.name for path in first.iterdir()) == ["bpftool", "libbpf.so.1"]
    assert len(make.sources) == 2
    assert provide() == first
    assert len(make.sources) == 2


def test_only_inputs_are_in_key(
    make: FakeMake, tree: Path, provide: Callable[[], Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = provide()
    (tree / "kernel/core.c").write_text("edited\n")
    (tree / "tools/perf").mkdir()
    (tree / "tools/perf/perf.c").write_text("edited\n")
    assert provide() == first
    seen = {first}
    for name in (PROGRAM, HELPER, "kernel/bpf/disasm.c", "scripts/bpf_doc.py"):
        (tree / name).write_text("edited\n")
        seen.add(provide())
    monkeypatch.setattr(toolchain, "versions", lambda: {"compiler": "gcc 2"})
    seen.add(provide())
    assert len(seen) == 6
    assert len(make.sources) == 12


def test_tools_have_patched_sources_and_tree_is_not_written(
    make: FakeMake, tree: Path, provide: Callable[[], Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpatched = provide()
    patch = edit(PROGRAM, "old", "new") + edit("kernel/core.c", "kernel/core.c", "new")
    patch += f"diff --git a/{REMOVED} b/{REMOVED}\ndeleted file mode 100644\n".encode()
    patch += f"--- a/{REMOVED}\n+++ /dev/null\n@@ -1 +0,0 @@\n-{REMOVED}\n".encode()
    added = "tools/include/added.h"
    patch += f"diff --git a/{added} b/{added}\nnew file mode 100644\n".encode()
    patch += f"--- /dev/null\n+++ b/{added}\n@@ -0,0 +1 @@\n+added\n".encode()
    series = PatchSeries(Path("patches"), "patches", (("1.patch", patch),))

    def with_series(*arguments: Any) -> PatchedSources:
        return replace(choose_sources(*arguments), series=series)

    monkeypatch.setattr(build_tools, "choose_sources", with_series)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert provide() != unpatched
    assert make.sources[-1] == {
        PROGRAM: "new\n",
        HELPER: "old\n",
        added: "added\n",
        "kernel/bpf/disasm.c": "old\n",
        "scripts/bpf_doc.py": "old\n",
    }
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def _hash_of_package(*patches: bytes, progress: Progress) -> str:
    source = DebianSource("linux-source", "trixie", "7.3.4-1", "7.3.4", Path("/nonexistent"))
    named = tuple((f"{number}.patch", patch) for number, patch in enumerate(patches))
    series = PatchSeries(Path("patches"), "patches", named)
    return build_tools._sources_hash(PatchedSources(source, series), progress)


def test_key_of_package_covers_only_changes_of_inputs() -> None:
    progress = SilentProgress()
    tools, kernel = edit(PROGRAM, "old", "new"), edit("kernel/core.c", "old", "new")
    base = _hash_of_package(tools, kernel, progress=progress)
    mail = b"From 1\nSubject: [PATCH] text\n\n---\n" + tools + b"-- \n2.39.5\n\n"
    for same in ((tools,), (tools, kernel, edit("net/x.c", "a", "b")), (kernel + tools,), (mail,)):
        assert _hash_of_package(*same, progress=progress) == base
    for other in ((kernel,), (tools, edit(HELPER, "old", "new")), (edit(PROGRAM, "old", "x"),)):
        assert _hash_of_package(*other, progress=progress) != base


def test_failed_build_is_one_line(make: FakeMake, provide: Callable[[], Path | None]) -> None:
    make.fails = True
    with pytest.raises(BuildFailedError, match=r"kernel tree does not build: .*: error: nonsense"):
        provide()
    make.fails = False
    assert provide()


def test_kernel_without_whole_series_has_no_tools(make: FakeMake, tree: Path) -> None:
    unpatched = KernelOptions(tree=tree, apply_series=True)
    partial = KernelOptions(tree=tree, apply_series=True, patches="1")
    patched = vm_profile.load_profile("base").kernel
    for profile, options in ((PROFILE, unpatched), (patched, partial)):
        assert build_tools.provide_tree_tools(profile, options, SilentProgress()) is None
    assert make.sources == []


def test_prebuilt_kernel_has_no_tools(tmp_path: Path) -> None:
    options = KernelOptions(image=tmp_path / "bzImage", modules=tmp_path)
    assert build_tools.provide_tree_tools(PROFILE, options, SilentProgress()) is None
