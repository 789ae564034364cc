# SPDX-License-Identifier: GPL-2.0-only
"""Decoding of traces with the kernel's script, or a reason in its place."""

from pathlib import Path

import pytest

from fixtures.host.execution.symbolize import symbolize

TEXT = "f+0x1/0x2\n"
SCRIPT = '#!/bin/sh\necho "$(basename "$1") $(basename "$3")"\nsed "s/$/ (a.c:7)/"\n'


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Return a kernel's folder with vmlinux and script."""
    (tmp_path / "kernel/scripts").mkdir(parents=True)
    (tmp_path / "kernel/vmlinux").touch()
    script = tmp_path / "kernel/scripts/decode_stacktrace.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return tmp_path / "kernel"


def test_script_of_first_folder_that_has_one_is_used(kernel: Path, tmp_path: Path) -> None:
    found = symbolize(TEXT, kernel / "vmlinux", kernel / "debug", [tmp_path / "absent", kernel])
    assert found == "vmlinux debug\nf+0x1/0x2 (a.c:7)\n"


def test_missing_sources_and_vmlinux_are_named(kernel: Path, tmp_path: Path) -> None:
    without = symbolize(TEXT, kernel / "vmlinux", kernel, [tmp_path])
    assert (
        without == f"{TEXT}\n(not decoded: neither sources nor scripts/decode_stacktrace.sh here)"
    )
    (kernel / "vmlinux").unlink()
    assert "no vmlinux" in symbolize(TEXT, kernel / "vmlinux", kernel, [kernel])


def test_failing_script_is_one_line(kernel: Path) -> None:
    (kernel / "scripts/decode_stacktrace.sh").write_text("#!/bin/sh\necho oops >&2\nexit 3\n")
    found = symbolize(TEXT, kernel / "vmlinux", kernel, [kernel])
    assert found.startswith(TEXT)
    assert found.endswith("(not decoded: decode_stacktrace.sh failed with exit status 3: oops)")
