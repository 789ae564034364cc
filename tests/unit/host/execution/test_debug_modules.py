# SPDX-License-Identifier: GPL-2.0-only
"""Compressed modules: nm, gdb, drgn and the kernel's script get files that they can read.

The modules are real ELF files with DWARF, from the compiler.
"""

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import drgn
import pytest

from fixtures.host.execution import gdb_session
from fixtures.host.execution.debug_modules import find_modules, is_compressed, unpacked
from fixtures.host.execution.symbolize import symbolize
from fixtures.host.introspection.drgn_program import DebugInfoMissing
from fixtures.host.introspection.query_server import QueryServer
from fixtures.host.util.errors import UserError
from fixtures.host.util.zstd_compat import zstd

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")

SOURCE = "struct flow { int id; };\nint flow_add(struct flow *f)\n{\n\treturn f->id;\n}\n"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".ko.gz": gzip.compress,
    ".ko.xz": lzma.compress,
    ".ko.zst": zstd.compress,
}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return an ELF file with a function and DWARF."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "flow.c").write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-O1", "-c", "flow.c", "-o", "flow.o"], cwd=folder, check=True)
    return (folder / "flow.o").read_bytes()


@pytest.fixture(params=COMPRESS)
def installed(request: pytest.FixtureRequest, module: bytes, tmp_path: Path) -> Path:
    """Return a folder with the module as a distribution installs it."""
    folder = tmp_path / "lib/modules/7.3.0/kernel/net"
    folder.mkdir(parents=True)
    (folder / f"nf-flow{request.param}").write_bytes(COMPRESS[request.param](module))
    return tmp_path / "lib"


def test_module_is_found_by_the_kernels_name_and_unpacked(
    installed: Path, module: bytes, tmp_path: Path
) -> None:
    (path,) = find_modules(installed).values()
    assert list(find_modules(installed)) == ["nf_flow"]
    for _ in range(2):
        file = unpacked(path, tmp_path / "unpacked")
        assert file.read_bytes() == module
        assert file.name == "nf-flow.ko"
    assert (file == path) is not is_compressed(path)


def test_breakpoint_in_module_is_found_and_gdb_reads_its_symbols(
    installed: Path, tmp_path: Path
) -> None:
    assert gdb_session.modules_of(["flow_add"], installed) == ["nf_flow"]
    assert gdb_session.modules_of(["flow_del", "flow_ad"], installed) == []
    sections = {"nf_flow": {".text": 0x1000}}
    script = gdb_session.gdb_script(Path("/gdb"), sections, installed, [], None, tmp_path / "copy")
    (line,) = [line for line in script.splitlines() if line.startswith("add-symbol-file")]
    symbols = subprocess.run(["nm", line.split()[1]], capture_output=True, text=True, check=True)
    assert " T flow_add" in symbols.stdout


def test_drgn_reads_the_types_of_the_module(installed: Path) -> None:
    server = QueryServer(Path("vmlinux"), installed)
    path = server._file(find_modules(installed), "nf_flow")
    program = drgn.Program(drgn.host_platform)
    program.extra_module("nf_flow", create=True).try_file(path, force=True)
    assert program.type("struct flow").members[0].name == "id"


def test_script_gets_the_modules_that_the_trace_names(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "scripts/decode_stacktrace.sh"
    script.parent.mkdir()
    # Like the kernel's script: it takes the first file that readelf can read.
    script.write_text(
        "#!/bin/sh\nf=$(find -L $3 -name 'nf[-_]flow.ko*')\n"
        'readelf -WS "$f" | grep -qwF .debug_line && sed "s/$/ decoded/"\n'
    )
    script.chmod(0o755)
    (tmp_path / "vmlinux").touch()
    text = "[   1.0]  flow_add+0x1/0x9 [nf_flow 0123abcd]\n"
    assert symbolize(text, tmp_path / "vmlinux", installed, [tmp_path]) == f"{text[:-1]} decoded\n"


@pytest.mark.parametrize("suffix", [".ko.gz", ".ko.xz", ".ko.zst"])
def test_damaged_module_is_one_line(suffix: str, module: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"nf_flow{suffix}"
    path.write_bytes(COMPRESS[suffix](module)[:-40])
    with pytest.raises(UserError, match=rf"nf_flow{suffix}: damaged: .*: install the modules"):
        unpacked(path, tmp_path / "copy")
    with pytest.raises(DebugInfoMissing, match="damaged"):
        QueryServer(Path("vmlinux"), tmp_path)._file({"nf_flow": path}, "nf_flow")
    script = tmp_path / "scripts/decode_stacktrace.sh"
    script.parent.mkdir()
    script.touch()
    (tmp_path / "vmlinux").touch()
    text = "f+0x1/0x2 [nf_flow]\n"
    decoded = symbolize(text, tmp_path / "vmlinux", tmp_path, [tmp_path])
    assert decoded.startswith(f"{text}\n(not decoded: ")
    assert decoded.count("\n") == 2


def test_file_with_debug_information_precedes_the_stripped_one(tmp_path: Path) -> None:
    for name in (
        "nf_flow.ko.xz",
        "usr/nf_flow.ko.debug",
        "other.ko.zst",
        "other.kobject",
        "a.ko.d",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_modules(tmp_path)
    assert {name: path.name for name, path in found.items()} == {
        "nf_flow": "nf_flow.ko.debug",
        "other": "other.ko.zst",
    }
    assert find_modules(tmp_path / "absent") == {}
