# SPDX-License-Identifier: GPL-2.0-only
"""Builds of tools/ after a patch: which patches need one, and what is a finding."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fixtures.host.patchcheck import tools_build


def _steps(*overlays: dict[str, bytes | None]) -> Any:
    return SimpleNamespace(
        patch_count=len(overlays) - 1, overlay=lambda count: overlays[count], series=None
    )


def test_only_patches_that_change_tools_are_built() -> None:
    first: dict[str, bytes | None] = {"tools/lib/bpf/libbpf.c": b"1", "kernel/bpf/a.c": b"1"}
    second = {**first, "kernel/bpf/a.c": b"2"}
    third = {**second, "tools/lib/bpf/libbpf.c": b"3"}
    assert tools_build.patches_with_tools(_steps({}, first, second, third)) == [1, 3]


def test_warnings_and_errors_are_found() -> None:
    output = [
        "Auto-detecting system features:",
        "libbpf.c:12:3: warning: unused variable 'x' [-Wunused-variable]",
        "map.c:7: fatal error: linux/none.h: No such file or directory",
        "cc1: all warnings being treated as errors",
    ]
    assert tools_build.messages(output) == [
        ("libbpf.c:12:3", "warning: unused variable 'x' [-Wunused-variable]"),
        ("map.c:7", "error: linux/none.h: No such file or directory"),
    ]


def test_failed_build_without_message_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@echo broken\n\t@false\n")
    (finding,) = tools_build.build_folder(tmp_path, "tools/lib/bpf", "0001-a.patch")
    assert "does not build after 0001-a.patch" in finding.text
    (tmp_path / "Makefile").write_text("all:\n\t@true\n")
    assert tools_build.build_folder(tmp_path, "tools/lib/bpf", "0001-a.patch") == []
