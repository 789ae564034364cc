# SPDX-License-Identifier: GPL-2.0-only
"""VM profiles: the project's own are valid, and a mistake is reported in one line."""

from pathlib import Path

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel import kconfig
from fixtures.host.util.errors import UserError

BASE = """\
description = "a kernel"
[kernel]
package = "linux-source-9.1"
suite = "later"
version = "9.1.2"
tarball = "https://example.org/v{major}.x/linux-{version}.tar.xz"
series = "patches/v9.1"
fragments = ["a.config"]
[vm]
memory_mib = 512
cpus = 2
cmdline = ["quiet"]
deadline_scale = 1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one valid profile."""
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "a.config").write_text("CONFIG_A=y\n")
    return tmp_path


@pytest.mark.parametrize("name", vm_profile.profile_names())
def test_project_profile_loads(name: str) -> None:
    loaded = vm_profile.load_profile(name)
    assert kconfig.load_fragments(vm_profile.VMCONFIGS, loaded.kernel.fragments)


def test_unpatched_profile_has_no_series() -> None:
    loaded = vm_profile.load_profile("unpatched")
    assert loaded.kernel.series is None
    assert "flowmap.config" not in loaded.kernel.fragments


def test_profile_has_every_key(folder: Path) -> None:
    loaded = vm_profile.load_profile("base", folder)
    assert loaded.kernel.tarball_url == "https://example.org/v9.x/linux-9.1.2.tar.xz"
    assert loaded.kernel.tarball_sha256 is None
    assert loaded.vm == vm_profile.VmProfile(512, 2, ("quiet",), 1.0)


def test_profile_overrides_keys_of_extended_profile(folder: Path) -> None:
    (folder / "slow.toml").write_text('extends = "base"\n[kernel]\nseries = ""\n[vm]\ncpus = 1\n')
    loaded = vm_profile.load_profile("slow", folder)
    assert (loaded.vm.cpus, loaded.vm.memory_mib) == (1, 512)
    assert loaded.kernel.series is None


def test_profile_may_need_a_compiler(folder: Path) -> None:
    assert vm_profile.load_profile("base", folder).kernel.compiler is None
    (folder / "san.toml").write_text('extends = "base"\n[kernel]\ncompiler = "clang"\n')
    assert vm_profile.load_profile("san", folder).kernel.compiler == "clang"


def error_message(folder: Path, name: str = "base") -> str:
    """Return the error message for an invalid profile."""
    with pytest.raises(UserError) as caught:
        vm_profile.load_profile(name, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_profile_lists_known_ones(folder: Path) -> None:
    assert "known: base" in error_message(folder, "bse")


def test_malformed_toml_is_located(folder: Path) -> None:
    (folder / "base.toml").write_text("description = 'x'\n[kernel\n")
    assert "base.toml" in error_message(folder)
    assert "line 2" in error_message(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cpus = 2", "cpus = 2\ncores = 3", "unknown key vm.cores"),
        ("cpus = 2\n", "", "vm.cpus is missing"),
        ("cpus = 2", "cpus = 2.5", "vm.cpus must be a whole number above zero"),
        ("cpus = 2", "cpus = true", "vm.cpus must be a whole number above zero"),
        ("memory_mib = 512", "memory_mib = 0", "vm.memory_mib must be"),
        ('["quiet"]', '"quiet"', "vm.cmdline must be a list of strings"),
        ('"a.config"', '"b.config"', "'b.config'"),
        ('suite = "later"', "suite = 3", "kernel.suite must be a string"),
        (
            'suite = "later"',
            'suite = "s"\ncompiler = "icc"',
            "kernel.compiler is 'icc': choose gcc",
        ),
        ("description", 'extends = "base"\ndescription', "extends itself"),
        ("description", 'extends = "gone"\ndescription', "unknown profile 'gone'"),
    ],
)
def test_invalid_profile_is_explained(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "base.toml").write_text(BASE.replace(old, new))
    assert message in error_message(folder)


def test_distro_profile_keeps_modules_of_the_suites_own_configuration() -> None:
    kernel = vm_profile.load_profile("distro").kernel
    assert kernel.debian_config
    assert kernel.modules_of == vm_profile.load_profile("base").kernel.fragments
    # The fragments of tinyconfig would build in what Debian has as modules.
    assert "base.config" not in kernel.fragments


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('debian_config = "linux-config-9.1"\nmodules_of = ["a.config"]', "write PACKAGE/FILE"),
        ('debian_config = "linux-config-9.1/file"', "go together"),
        ('modules_of = ["a.config"]', "go together"),
        ('debian_config = "p/f"\nmodules_of = ["b.config"]', "modules_of names 'b.config'"),
    ],
)
def test_invalid_debian_config_is_explained(folder: Path, keys: str, message: str) -> None:
    (folder / "own.toml").write_text(f'extends = "base"\ndescription = "own"\n[kernel]\n{keys}\n')
    assert message in error_message(folder, "own")
