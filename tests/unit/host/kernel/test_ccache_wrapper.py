# SPDX-License-Identifier: GPL-2.0-only
"""The ccache wrapper: C goes through ccache, assembly does not."""

import shutil
from pathlib import Path

import pytest

from fixtures.host.kernel import toolchain
from fixtures.host.util.subprocess_util import run


@pytest.mark.parametrize(
    ("source", "compiler"),
    [("a.c", "ccache gcc"), ("piggy.S", "gcc"), ("--version", "ccache gcc")],
)
def test_assembly_bypasses_ccache(tmp_path: Path, source: str, compiler: str) -> None:
    for name, text in (("ccache", 'echo ccache "$@"'), ("gcc", 'echo gcc "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = toolchain.environment(tmp_path, tmp_path)["PATH"]
    wrapper_dir = path.partition(":")[0]
    args = [*toolchain.COMPILER.split(), "-c", "-o", "a b.o", source]
    output = run(args, env={"PATH": f"{wrapper_dir}:{tmp_path}:/usr/bin:/bin"}).stdout
    assert output == f"{compiler} -c -o a b.o {source}\n"


@pytest.mark.skipif(
    not (shutil.which("ccache") and shutil.which("gcc")),
    reason="no ccache or no gcc: run python -m fixtures.host.setup",
)
def test_assembly_object_has_current_incbin_content(tmp_path: Path) -> None:
    environment = toolchain.environment(tmp_path, tmp_path / "cache")
    compiler = toolchain.COMPILER.split()
    (tmp_path / "piggy.S").write_text(f'.incbin "{tmp_path / "kernel"}"\n')
    objects = []
    for kernel in (b"one", b"two"):
        (tmp_path / "kernel").write_bytes(kernel)
        depends = f"-Wp,-MMD,{tmp_path / 'piggy.d'}"
        target, source = str(tmp_path / "piggy.o"), str(tmp_path / "piggy.S")
        run([*compiler, depends, "-c", "-o", target, source], env=environment)
        objects.append(Path(target).read_bytes())
    assert [b"one" in objects[0], b"two" in objects[1]] == [True, True]
