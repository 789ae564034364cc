# SPDX-License-Identifier: GPL-2.0-only
"""The compiler of a kernel: how it is found, and what is said if it cannot be used."""

from pathlib import Path

import pytest

from fixtures.host.kernel import toolchain
from fixtures.host.kernel.compiler import (
    GCC,
    LLVM_PROGRAMS,
    Compiler,
    choose_compiler,
    find_compiler,
)
from fixtures.host.util.errors import UserError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder of programs; it is empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, suffix: str, *, without: str = "", version: str = "") -> None:
    """Create LLVM's programs.

    Args:
        folder: their folder.
        suffix: end of their names.
        without: a program that is left out.
        version: what clang's first line says; default: nothing.
    """
    for name in LLVM_PROGRAMS:
        if name != without:
            path = folder / f"{name}{suffix}"
            path.write_text(f"#!/bin/sh\necho 'clang version {version}'\n")
            path.chmod(0o755)


def message(name: str) -> str:
    """Return the message for a compiler that cannot be used."""
    with pytest.raises(UserError) as caught:
        find_compiler(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gcc_is_the_default(programs: Path) -> None:
    assert not list(programs.iterdir())
    assert choose_compiler("base", None, None) == GCC
    assert choose_compiler("base", None, "gcc") == GCC
    assert toolchain.make_variables(GCC) == {
        "CC": "ccache gcc",
        "HOSTCC": "ccache gcc",
        **toolchain.MAKE_VARIABLES,
    }


def test_newest_complete_clang_is_taken(programs: Path) -> None:
    install(programs, "-17")
    install(programs, "-100")
    install(programs, "-101", without="ld.lld")
    install(programs, "-16")
    found = find_compiler("clang")
    assert found == Compiler("clang", "clang-100", "ld.lld-100", {"LLVM": "-100"})
    made = toolchain.make_variables(found)
    assert (made["CC"], made["HOSTCC"]) == ("ccache clang-100", "ccache clang-100")
    assert made["LLVM"] == "-100"


def test_version_can_be_chosen(programs: Path) -> None:
    install(programs, "-17")
    install(programs, "-19")
    assert find_compiler("clang-17").command == "clang-17"
    assert "apt-get install -y clang-18 lld-18 llvm-18" in message("clang-18")


def test_too_old_clang_is_not_taken(programs: Path) -> None:
    install(programs, "-16")
    assert "cannot build a kernel with clang" in message("clang")
    assert message("clang-16") == "clang-16: Linux needs LLVM 17 or later"


@pytest.mark.parametrize(("version", "good"), [("19.1.7", True), ("14.0.6", False), ("x", False)])
def test_unversioned_clang_is_taken_if_new_enough(programs: Path, version: str, good: bool) -> None:
    install(programs, "", version=version)
    if good:
        assert find_compiler("clang") == Compiler("clang", "clang", "ld.lld", {"LLVM": "1"})
    else:
        assert "run: " in message("clang")


def test_missing_clang_names_the_command(programs: Path) -> None:
    assert "tox -e setup -- clang" in message("clang")
    for name in ("dpkg-query", "apt-get"):
        (programs / name).write_text("")
        (programs / name).chmod(0o755)
    assert "run: apt-get install -y clang-19 lld-19 llvm-19 (or: " in message("clang")


@pytest.mark.parametrize("wanted", ["icc", "clang16", "clang-", "gcc-12", "", "clang-19 "])
def test_unknown_compiler_is_refused(wanted: str) -> None:
    with pytest.raises(UserError, match=r"--compiler: unknown compiler .*: gcc, clang or clang-NN"):
        choose_compiler("base", None, wanted)


def test_profile_that_needs_clang_refuses_gcc(programs: Path) -> None:
    install(programs, "-19")
    with pytest.raises(UserError, match=r"^profile kmsan can only be built with clang: leave out"):
        choose_compiler("kmsan", "clang", "gcc")
    assert choose_compiler("kmsan", "clang", None).command == "clang-19"
    assert choose_compiler("kmsan", "clang", "clang-19").command == "clang-19"
    with pytest.raises(UserError, match=r"^profile g can only be built with gcc"):
        choose_compiler("g", "gcc", "clang")


def test_versions_are_those_of_the_compiler(programs: Path) -> None:
    install(programs, "-19", version="19.1")
    (programs / "pahole").write_text("#!/bin/sh\necho v1\n")
    (programs / "pahole").chmod(0o755)
    assert toolchain.versions(find_compiler("clang")) == {
        "compiler": "clang version 19.1",
        "linker": "clang version 19.1",
        "pahole": "v1",
    }
    with pytest.raises(UserError, match="without gcc"):
        toolchain.versions()
