# SPDX-License-Identifier: GPL-2.0-only
"""Edited module files: one import stays, the licence changes, no relocation can be applied."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.guest.kernel.module_file import ModuleFile

_SOURCE = """
extern int wanted(void);
extern int other(void);
static const char info[] __attribute__((section(".modinfo"), used)) =
    "license=GPL\\0alias=some-alias";
int init(void) { return wanted() + other(); }
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """An object file with two imports, compiled as a module is."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    source = tmp_path / "module.c"
    source.write_text(_SOURCE)
    compiled = tmp_path / "module.o"
    subprocess.run(["gcc", "-c", "-fno-pic", source, "-o", compiled], check=True)
    return compiled


def test_copy_imports_one_symbol_under_other_licence(module: Path, tmp_path: Path) -> None:
    original = ModuleFile(module)
    assert original.imports() == ["other", "wanted"]
    assert original.aliases() == ["some-alias"]
    copy = tmp_path / "copy.o"
    original.write_importing_only("wanted", copy, "MIT")
    assert ModuleFile(copy).imports() == ["wanted"]
    content = copy.read_bytes()
    assert b"license=MIT\0" in content
    assert b"license=GPL" not in content
    assert len(content) == len(module.read_bytes())


def test_symbol_that_is_not_imported_is_an_error(module: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="does not import"):
        ModuleFile(module).write_importing_only("third", tmp_path / "copy.o")
