# SPDX-License-Identifier: GPL-2.0-only
"""The commands with which gdb attaches, and where a breakpoint can be."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.execution import gdb_session
from fixtures.host.util.errors import UserError

SYMBOLS = {
    "vmlinux": "start_kernel T ffffffff81000000 10\nnf_hook_slow T ffffffff81000010 10\n",
    "nf_flow_table.ko": "flow_offload_add T 0 10\n",
    "nf-other.ko": "init_module T 0 10\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two modules, whose symbols are `SYMBOLS`."""

    def run(argv: Sequence[Any], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(list(argv), 0, SYMBOLS[Path(argv[-1]).name], "")

    monkeypatch.setattr(gdb_session, "run", run)
    for name in ("nf_flow_table.ko", "nf-other.ko"):
        (tmp_path / name).touch()
    return tmp_path


def test_module_of_a_function_is_found(modules: Path) -> None:
    assert gdb_session.modules_of(["flow_offload_add", "nf_hook_slow"], modules) == [
        "nf_flow_table"
    ]
    assert gdb_session.modules_of([], modules) == []


def test_function_that_does_not_exist_is_refused(modules: Path) -> None:
    vmlinux = modules / "vmlinux"
    gdb_session.require_functions(["flow_offload_add", "nf_hook_slow"], vmlinux, modules)
    with pytest.raises(UserError, match=r"--break flow_offload: .*may be inlined"):
        gdb_session.require_functions(["flow_offload"], vmlinux, modules)


def test_script_adds_symbols_of_loaded_modules_before_breakpoints(modules: Path) -> None:
    sections = {
        "nf_flow_table": {".text": 0x1000, ".data": 0x2000, ".init.text": 0x3000},
        "without_file": {".text": 0x4000},
    }
    script = gdb_session.gdb_script(
        Path("/tmp/gdb"), sections, modules, ["flow_offload_add"], Path("/src"), modules
    ).splitlines()
    symbols = f"add-symbol-file {modules / 'nf_flow_table.ko'} 0x1000 -s .data 0x2000"
    assert script.index("target remote /tmp/gdb") < script.index(symbols)
    assert script.index(symbols) < script.index("hbreak flow_offload_add")
    assert script[-1] == "continue"
    assert "directory /src/kernel" in script
    assert not any("without_file" in line or ".init" in line for line in script)


def test_script_without_breakpoint_leaves_the_vm_stopped(modules: Path) -> None:
    script = gdb_session.gdb_script(Path("/tmp/gdb"), {}, modules, [], None, modules)
    assert "continue" not in script
