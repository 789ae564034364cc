# SPDX-License-Identifier: GPL-2.0-only
"""32-bit builds: the variables of make, what is compiled, and a missing compiler."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.host.kernel import toolchain
from fixtures.host.patchcheck import build_32bit, compiler_warnings
from fixtures.host.patchcheck.finding import Finding
from fixtures.host.util.errors import UserError
from fixtures.host.util.progress import SilentProgress

I386, ARM = build_32bit.MACHINES

MAKEFILE = """\
$(OUTPUT)libbpf.a:
\t@echo 'libbpf.c:1:2: warning: $(CROSS_COMPILE)' >&2
$(OUTPUT)%.o: %.c
\t@echo '$<:3:4: warning: $(SKIP_LLVM)' >&2
"""


@pytest.fixture
def steps(tmp_path: Path) -> Any:
    """Return a series of one patch on a tree with two small folders below ``tools/``."""
    for folder in (build_32bit.LIBBPF, build_32bit.BPFTOOL):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "Makefile").write_text(MAKEFILE)
    for name in ("map.c", "prog.c", "sign.c", "jit_disasm.c"):
        (tmp_path / build_32bit.BPFTOOL / name).write_text("")
    return SimpleNamespace(
        patch_count=1,
        series=SimpleNamespace(patches=[("0001-a.patch", b"")]),
        work=SimpleNamespace(source=tmp_path),
        sync=lambda _: None,
    )


def test_each_machine_has_its_compiler_for_the_kernel() -> None:
    i386, arm = (toolchain.make_variables(machine.compiler) for machine in build_32bit.MACHINES)
    assert (i386["CC"], i386["ARCH"]) == ("ccache gcc", "i386")
    assert (arm["CC"], arm["HOSTCC"]) == ("ccache arm-linux-gnueabihf-gcc", "ccache gcc")
    assert (arm["ARCH"], arm["SRCARCH"]) == ("arm", "arm")
    assert arm["CROSS_COMPILE"] == "arm-linux-gnueabihf-"


def test_tools_are_compiled_but_not_linked(steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_32bit, "_require", lambda _: None)
    found = build_32bit.check_tools(ARM, steps, SilentProgress())
    assert sorted(map(str, found)) == [
        "libbpf.c:1:2: warning: arm-linux-gnueabihf- (after 0001-a.patch)",
        "map.c:3:4: warning: 1 (after 0001-a.patch)",
        "prog.c:3:4: warning: 1 (after 0001-a.patch)",
    ]


def test_kernel_is_compiled_unpatched_and_patched(
    steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(build_32bit, "_require", lambda _: None)

    def check_each_patch(*_: Any, **given: Any) -> list[Finding]:
        seen.append(given)
        return []

    monkeypatch.setattr(compiler_warnings, "check_each_patch", check_each_patch)
    assert build_32bit.check_kernel(I386, steps, (), SilentProgress()) == []
    (given,) = seen
    assert given["counts"] == (0, 1)
    assert (given["start"], given["compiler"]) == ("allmodconfig", I386.compiler)


def test_missing_compiler_names_the_command(steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    message = r"\A[^\n]*-gcc is missing; [^\n]*tox -e setup -- series\)\Z"
    with pytest.raises(UserError, match=message):
        build_32bit.check_tools(I386, steps, SilentProgress())
    with pytest.raises(UserError, match=message):
        build_32bit.check_kernel(ARM, steps, (), SilentProgress())
