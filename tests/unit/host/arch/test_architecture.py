# SPDX-License-Identifier: GPL-2.0-only
"""Architectures of the kernel under test, and what depends on one."""

from pathlib import Path

import pytest

from fixtures.host.arch import architecture
from fixtures.host.arch.architecture import ARCHITECTURES, Architecture
from fixtures.host.compile import bpf_objects
from fixtures.host.config import vm_profile
from fixtures.host.kernel import compiler, kconfig, toolchain
from fixtures.host.setup import system_packages
from fixtures.host.util.errors import UserError

FOREIGN = [arch for arch in ARCHITECTURES.values() if not arch.is_native]


def test_unknown_architecture_lists_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"unknown architecture 'mips'; known: x86_64, s390x, arm64"
    ):
        architecture.find_architecture("mips")


def test_architecture_is_found_by_machine() -> None:
    assert architecture.architecture_of_machine("aarch64").name == "arm64"


@pytest.mark.parametrize("arch", FOREIGN, ids=lambda arch: arch.name)
def test_profile_of_architecture_has_its_fragments_last(arch: Architecture) -> None:
    native = vm_profile.load_profile("debug")
    loaded = vm_profile.load_profile("debug", arch=arch.name)
    assert loaded.architecture is arch
    assert loaded.kernel.fragments == (*native.kernel.fragments, *arch.fragments)
    assert kconfig.load_fragments(vm_profile.VMCONFIGS, loaded.kernel.fragments)


def test_profile_without_meaning_on_architecture_is_refused() -> None:
    with pytest.raises(UserError, match=r"the profile preempt-rt has no meaning on s390x: .*toml"):
        vm_profile.load_profile("preempt-rt", arch="s390x")
    assert vm_profile.load_profile("preempt-rt", arch="arm64").arch == "arm64"


@pytest.mark.parametrize("arch", FOREIGN, ids=lambda arch: arch.name)
def test_missing_packages_are_named_with_the_install_command(
    arch: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_packages, "_has_program", lambda _: False)
    with pytest.raises(UserError) as caught:
        system_packages.require_architecture(arch)
    assert f"run apt-get install -y {arch.compiler_package} " in str(caught.value)
    assert arch.qemu_package in str(caught.value)
    assert "\n" not in str(caught.value)


def test_host_architecture_needs_no_further_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_packages, "_has_program", lambda _: False)
    system_packages.require_architecture(architecture.X86_64)


@pytest.mark.parametrize("arch", FOREIGN, ids=lambda arch: arch.name)
def test_missing_cross_compiler_is_one_line(
    arch: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=f"run apt-get install -y {arch.compiler_package}$"):
        compiler.for_architecture(compiler.GCC, arch)


def test_bpf_objects_have_the_byte_order_of_the_kernel() -> None:
    targets = {name: bpf_objects.cflags(arch)[3] for name, arch in ARCHITECTURES.items()}
    assert targets == {"x86_64": "bpf", "s390x": "bpfeb", "arm64": "bpf"}


def test_make_variables_name_the_cross_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    chosen = compiler.for_architecture(compiler.GCC, architecture.S390X)
    variables = toolchain.make_variables(chosen)
    assert variables["CROSS_COMPILE"] == "s390x-linux-gnu-"
    assert variables["CC"] == "ccache s390x-linux-gnu-gcc"
    assert variables["HOSTCC"] == "ccache gcc"
    assert compiler.for_architecture(compiler.GCC, architecture.X86_64) is compiler.GCC


def test_clang_builds_for_the_host_only() -> None:
    clang = compiler.Compiler("clang", "clang-19", "ld.lld-19", {"LLVM": "-19"})
    with pytest.raises(UserError, match="--arch s390x: clang-19 builds x86-64 kernels only here"):
        compiler.for_architecture(clang, architecture.S390X)
