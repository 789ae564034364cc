# SPDX-License-Identifier: GPL-2.0-only
"""The build pipeline with a fake builder: what is built, cached and rebuilt."""

import dataclasses
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from fixtures.flowmap.series import EXPORTED_SYMBOLS
from fixtures.host.arch.architecture import Architecture
from fixtures.host.config import vm_profile
from fixtures.host.kernel import (
    build_pipeline,
    compiler,
    kbuild,
    kconfig,
    kernel_cache,
    patch_series,
    patched_sources,
    resource_check,
    suite_modules,
    toolchain,
)
from fixtures.host.kernel.built_kernel import Kernel
from fixtures.host.kernel.compiler import Compiler
from fixtures.host.kernel.kernel_cli_options import KernelOptions
from fixtures.host.kernel.sources.user_tree import UserTreeSource
from fixtures.host.util.environment_error import describe
from fixtures.host.util.errors import BuildFailedError, UserError
from fixtures.host.util.host_limits import HostLimits
from fixtures.host.util.progress import Progress, SilentProgress
from fixtures.host.util.subprocess_util import CommandError, run
from tests.unit.host.util.lock_holder import lock_holder
from tests.unit.host.util.small_file_system import fill, small_file_system


class FakeBuilder:
    """Creates an image from core.c and a module from module.c."""

    built = 0
    compilers: ClassVar[list[str]] = []
    fails: Callable[[], None] | None = None
    exports = "schedule"
    compiler_flags = "-O2"

    def __init__(
        self,
        source: Path,
        build_dir: Path,
        folder: Path,
        lock: int,
        variables: Sequence[str],
        chosen: Compiler,
        arch: Architecture,
    ) -> None:
        assert arch.is_native
        type(self).compilers.append(chosen.command)
        assert lock > 2
        assert tuple(variables) == ()
        assert folder.is_dir()
        self.source = source
        self.build_dir = build_dir
        self.log = build_dir / "flowmap-build/build.log"

    def make(self, target: str, **more: str) -> None:
        """Accept every symbol; create one module for the target ``modules``."""
        if target == "tinyconfig":
            (self.build_dir / ".config").write_text("")
        if target == "modules":
            has_option = "MO" in (self.source / "Makefile").read_text()
            output = Path(more["MO"] if has_option else more["M"])
            assert output.is_relative_to(self.build_dir), "two builds would share its files"
            assert Path(more["M"], "Kbuild").is_file()
            (output / "fm_dummy_map.ko").write_text("ours\n")

    def build(self, progress: Progress, name: str) -> int:
        """Create the output files of a build."""
        assert isinstance(progress, SilentProgress)
        assert name
        type(self).built += 1
        installed = self.build_dir / "modinstall/lib/modules/7.3.4"
        packed = self.build_dir / "arch/x86/boot/compressed/vmlinux.bin.gz"
        for folder in (self.log.parent, packed.parent, installed):
            folder.mkdir(parents=True, exist_ok=True)
        core, module = ((self.source / f).read_bytes() for f in ("core.c", "module.c"))
        self.log.write_text("CC\n")
        packed.write_bytes(core)
        (self.build_dir / "arch/x86/boot/bzImage").write_bytes(struct.pack("I", 7) + core)
        (self.build_dir / "vmlinux").write_bytes(core)
        (self.build_dir / "System.map").write_text("")
        (installed / "module.ko").write_bytes(module)
        (self.build_dir / "module.ko").write_bytes(b"debug info of " + module)
        symbol = f"0x00000000\t{self.exports}\tvmlinux\tEXPORT_SYMBOL_GPL\t\n"
        (self.build_dir / "Module.symvers").write_text(symbol)
        (self.build_dir / "modules.order").write_text("module.o\n")
        (installed / "build").unlink(missing_ok=True)
        (installed / "build").symlink_to(self.build_dir)
        if self.fails:
            self.fails()
        return 2


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a kernel tree; the cache is empty."""
    folder = tmp_path / "linux"
    (folder / "scripts/kconfig").mkdir(parents=True)
    (folder / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
    for name in ("Kconfig", "Kbuild", "scripts/kconfig/Makefile", "core.c", "module.c"):
        (folder / name).write_text(f"{name}\n")
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(FakeBuilder, "built", 0)
    monkeypatch.setattr(FakeBuilder, "compilers", [])
    monkeypatch.setattr(FakeBuilder, "fails", None)
    monkeypatch.setattr(FakeBuilder, "exports", "schedule")
    monkeypatch.setattr(build_pipeline, "Builder", FakeBuilder)
    monkeypatch.setattr(toolchain, "versions", lambda chosen: {"compiler": f"{chosen.command} 1"})
    monkeypatch.setattr(toolchain, "require_tools", lambda: None)
    monkeypatch.setattr(kernel_cache, "run", lambda *_, **__: None)
    return folder


def names(folder: Path) -> list[str]:
    """Return the names of a folder's entries, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())


UNPATCHED = vm_profile.load_profile("unpatched")


def get(tree: Path, which: vm_profile.Profile = UNPATCHED) -> Kernel:
    """Return the tree's kernel from the pipeline."""
    return build_pipeline.provide_kernel(which, KernelOptions(tree=tree), SilentProgress())


def test_kernel_is_built_once_then_found(tree: Path) -> None:
    first = get(tree)
    assert first.image.is_file()
    assert (first.modules / "lib/modules" / first.release / "module.ko").is_file()
    assert not (first.modules / "lib/modules" / first.release / "build").is_symlink()
    assert first.metadata["source"]["patched_by"] == "its owner"
    assert first.metadata["series"] is None
    assert get(tree) == first
    assert FakeBuilder.built == 1


def test_each_compiler_has_its_kernel_and_build_tree(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clang = Compiler("clang", "clang-99", "ld.lld-99", {"LLVM": "-99"})
    monkeypatch.setattr(compiler, "find_compiler", {"gcc": compiler.GCC, "clang": clang}.get)
    options = KernelOptions(tree=tree, compiler="clang")
    by_gcc = get(tree)
    by_clang = build_pipeline.provide_kernel(UNPATCHED, options, SilentProgress())
    assert by_clang.key != by_gcc.key
    assert by_clang.metadata["tools"]["compiler"] == "clang-99 1"
    assert get(tree) == by_gcc
    assert build_pipeline.provide_kernel(UNPATCHED, options, SilentProgress()) == by_clang
    assert FakeBuilder.compilers == ["gcc", "clang-99"]
    assert len(names(tree.parent / "cache/work")) == 2


def test_changed_module_changes_key_but_not_image(tree: Path) -> None:
    first = get(tree)
    (tree / "module.c").write_text("edited, and longer\n")
    second = get(tree)
    assert second.key != first.key
    assert second.image_key == first.image_key
    assert first.vmlinux
    assert second.vmlinux
    assert second.vmlinux.stat().st_ino == first.vmlinux.stat().st_ino, "a copy would take 230 MB"
    (tree / "core.c").write_text("edited, and longer\n")
    assert get(tree).image_key != first.image_key


def test_stale_image_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_stale(_: FakeBuilder) -> None:
        (image,) = (tree.parent / "cache").rglob("bzImage")
        image.write_bytes(b"of the build before")

    monkeypatch.setattr(FakeBuilder, "fails", make_stale)
    with pytest.raises(UserError, match=r"bzImage does not contain vmlinux\.bin\.gz: remove "):
        get(tree)
    assert not list((tree.parent / "cache/kernels").glob("*"))


def test_changed_kconfig_file_reconfigures(tree: Path) -> None:
    calls: list[str] = []

    def count(self: FakeBuilder, target: str) -> None:
        calls.append(target)
        self.build_dir.joinpath(".config").write_text("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeBuilder, "make", count)
        patch.setattr(kconfig, "unsatisfied_symbols", lambda *_: [])
        get(tree)
        (tree / "core.c").write_text("edited, and longer\n")
        get(tree)
        assert calls == ["tinyconfig", "olddefconfig"]
        (tree / "Kconfig").write_text("config NEW\n")
        get(tree)
    assert len(calls) == 4


class EditWhileWaiting(SilentProgress):
    """Edits a file when the build starts to wait for the lock, and then ends the lock's holder."""

    def __init__(self, holder: "subprocess.Popen[str]", file: Path) -> None:
        self.holder, self.file, self.lines = holder, file, list[str]()

    def say(self, line: str) -> None:
        """Edit the file and let the build continue."""
        self.lines.append(line)
        if line.startswith("Waiting for another build"):
            self.file.write_text("edited meanwhile, and longer\n")
            self.holder.kill()


def test_tree_edited_while_build_waits_gets_key_of_edit(tree: Path, tmp_path: Path) -> None:
    before = get(tree)
    (tree / "core.c").write_text("first edit\n")
    (lock,) = (tmp_path / "cache/work").glob("*/lock")
    with lock_holder(lock) as holder:
        progress = EditWhileWaiting(holder, tree / "core.c")
        kernel = build_pipeline.provide_kernel(UNPATCHED, KernelOptions(tree=tree), progress)
    assert kernel.vmlinux
    assert kernel.vmlinux.read_text() == "edited meanwhile, and longer\n"
    assert any("starting again" in line for line in progress.lines)
    assert get(tree) == kernel
    (tree / "core.c").write_text("first edit\n")
    first = get(tree)
    assert len({before.key, first.key, kernel.key}) == 3
    assert first.vmlinux
    assert first.vmlinux.read_text() == "first edit\n"


def test_tree_edited_in_every_attempt_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UserTreeSource, "is_current", lambda _: False)
    with pytest.raises(UserError, match="changed 3 times while the build read it"):
        get(tree)
    assert FakeBuilder.built == 0


def test_suite_modules_edited_during_build_are_built_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(("before", "after"))
    monkeypatch.setattr(suite_modules, "sources_sha256", lambda: next(states, "after"))
    assert get(tree).metadata["test_modules"] == "after"
    assert FakeBuilder.built == 2


def test_key_covers_fragments_and_compiler(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {get(tree).key}
    less = dataclasses.replace(UNPATCHED.kernel, fragments=("base.config",))
    keys.add(get(tree, dataclasses.replace(UNPATCHED, kernel=less)).key)
    monkeypatch.setattr(toolchain, "versions", lambda _: {"compiler": "gcc 2"})
    keys.add(get(tree).key)
    assert len(keys) == 3


def test_key_covers_initial_configuration(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = dataclasses.replace(UNPATCHED.kernel, fragments=(), modules_of=("flowmap.config",))
    keys = {get(tree).key}
    for text in ("CONFIG_A=y\nCONFIG_B=m\n", "CONFIG_A=m\n", "CONFIG_B=m\n"):
        monkeypatch.setattr(
            build_pipeline, "read_debian_config", lambda *_, text=text: ("config_1", text)
        )
        kernel = get(tree, dataclasses.replace(UNPATCHED, kernel=own))
        assert kernel.metadata["initial_config"] == "config_1"
        keys.add(kernel.key)
    assert len(keys) == 4


def test_read_only_cache_is_usable(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise PermissionError

    first = get(tree)
    for name in ("os.utime", "pathlib.Path.mkdir", "pathlib.Path.write_text", "os.link"):
        monkeypatch.setattr(name, read_only)
    assert get(tree) == first


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"release": "7.3.4"}'])
def test_damaged_metadata_is_built_again(tree: Path, content: str) -> None:
    first = get(tree)
    (first.directory / "metadata.json").write_text(content)
    assert get(tree).metadata["release"] == "7.3.4"
    assert FakeBuilder.built == 2
    assert names(first.directory.parent) == [first.key]


def test_two_checkouts_that_build_one_kernel_share_it(tree: Path, tmp_path: Path) -> None:
    """Each has a copy of the sources in a build tree of its own, so neither waits for the other."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        run(["git", *command], cwd=tree)
    run(["git", "clone", "-q", str(tree), str(tmp_path / "clone")])
    during: list[Kernel] = []

    def build_clone() -> None:
        if not during:
            during.append(None)  # type: ignore[arg-type]  # replaced below
            during[0] = get(tmp_path / "clone")

    FakeBuilder.fails = staticmethod(build_clone)
    kernel = get(tree)
    assert FakeBuilder.built == 2
    assert during[0].directory == kernel.directory
    assert kernel.image.is_file()
    assert names(tmp_path / "cache/kernels") == [kernel.key]


def test_full_disk_leaves_no_kernel_and_is_one_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_check, "require_resources", lambda *_, **__: None)
    with small_file_system(tmp_path / "cache", 512) as cache:

        def fill_disk() -> None:
            fill(cache)

        FakeBuilder.fails = staticmethod(fill_disk)
        with pytest.raises(OSError, match="No space left") as error:
            get(tree)
        assert "tox -e cache" in describe(error.value)
        assert list((cache / "kernels").iterdir()) == []
        (cache / "ballast").unlink()
        FakeBuilder.fails = None
        assert get(tree).image.is_file()


def test_failed_kconfig_is_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> None:
        raise CommandError(
            ["make", "tinyconfig"], 2, "", "net/Kconfig:7: syntax error\nmake: stop\n"
        )

    monkeypatch.setattr(FakeBuilder, "make", make)
    with pytest.raises(BuildFailedError, match=r"^kconfig: make failed .*: net/Kconfig:7: syntax"):
        get(tree)


def test_modules_with_debug_info_are_stored(tree: Path) -> None:
    kernel = get(tree)
    assert kernel.debug_modules
    assert (kernel.debug_modules / "module.ko").read_text() == "debug info of module.c\n"


def test_scripts_that_decode_traces_are_stored(tree: Path) -> None:
    assert not (get(tree).directory / "scripts").exists()
    (tree / "scripts/decode_stacktrace.sh").write_text("#!/bin/bash\n")
    assert (get(tree).directory / "scripts/decode_stacktrace.sh").is_file()


def test_second_build_in_another_folder_has_same_key(tree: Path, tmp_path: Path) -> None:
    first, place = get(tree), tmp_path / "elsewhere"
    again = build_pipeline.provide_kernel(
        UNPATCHED, KernelOptions(tree=tree), SilentProgress(), place
    )
    assert FakeBuilder.built == 2
    assert again.key == first.key
    assert again.directory == place / "kernels" / first.key
    assert again.source_tree
    assert again.source_tree.is_relative_to(place)
    assert get(tree) == first


@pytest.mark.parametrize("makefile", ['ifeq ("$(origin MO)", "command line")\n', "all:\n"])
def test_suite_modules_are_built_for_patched_kernel_only(
    tree: Path, monkeypatch: pytest.MonkeyPatch, makefile: str
) -> None:
    with (tree / "Makefile").open("a") as text:
        text.write(makefile)
    plain = get(tree)
    assert plain.debug_modules
    assert not (plain.debug_modules / "fm_dummy_map.ko").exists()

    (tree / "core.c").write_text("patched\n")
    monkeypatch.setattr(FakeBuilder, "exports", EXPORTED_SYMBOLS[0])
    patched = get(tree)
    assert patched.debug_modules
    assert (patched.debug_modules / "fm_dummy_map.ko").read_text() == "ours\n"


def test_key_covers_suite_modules(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = get(tree)
    monkeypatch.setattr(suite_modules, "sources_sha256", lambda: "edited")
    assert get(tree).key != first.key


def test_scripts_are_taken_from_build_tree(tree: Path) -> None:
    scripts = get(tree).source_tree
    assert scripts
    assert (scripts / "Makefile").is_file()
    assert tree not in (scripts, *scripts.parents)


def test_unused_kernels_are_pruned(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "KEEP_PER_PROFILE", 1)
    kernels = []
    for number, age in enumerate((2 * kernel_cache.MAX_UNUSED_SECONDS, 60.0, 30.0)):
        (tree / "core.c").write_text("edited\n" * (number + 2))
        kernels.append(get(tree))
        then = time.time() - age
        os.utime(kernels[-1].directory / "metadata.json", (then, then))
    assert [kernel.directory.exists() for kernel in kernels] == [False, True, True]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, UserError, RuntimeError])
def test_interrupted_build_leaves_no_result_and_no_lock(
    tree: Path, tmp_path: Path, failure: type[BaseException]
) -> None:
    def fail() -> None:
        raise failure

    FakeBuilder.fails = staticmethod(fail)
    with pytest.raises(failure):
        get(tree)
    assert not list((tmp_path / "cache").glob("kernels/*"))
    FakeBuilder.fails = None
    assert get(tree).image.is_file()


def test_unwritable_cache_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file cannot be written to.*FLOWMAP_CACHE"):
        get(tree)


@pytest.mark.parametrize("name", ["my cache", "cache:1"])
def test_cache_with_space_or_colon_is_refused_in_one_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / name))
    with pytest.raises(UserError, match=r"spaces or colons: set FLOWMAP_CACHE") as error:
        get(tree)
    assert "\n" not in str(error.value)
    assert not (tmp_path / name).exists()


def test_home_with_space_is_refused_before_any_download(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWMAP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    with pytest.raises(UserError, match=r"my home.*spaces or colons"):
        get(tree)
    assert not (tmp_path / "my home").exists()


def test_tree_with_space_is_built(tree: Path) -> None:
    spaced = tree.with_name("my linux")
    tree.rename(spaced)
    assert get(spaced).image.is_file()


def test_suite_modules_of_clone_with_space_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert suite_modules._without_spaces(tmp_path / "copy") == suite_modules.SOURCE_DIR
    clone = tmp_path / "my clone/modules"
    shutil.copytree(suite_modules.SOURCE_DIR, clone)
    monkeypatch.setattr(suite_modules, "SOURCE_DIR", clone)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/removed.c").touch()
    copy = suite_modules._without_spaces(tmp_path / "copy")
    assert copy == tmp_path / "copy"
    assert names(copy) == names(clone)
    before = (copy / "Kbuild").stat().st_mtime_ns
    suite_modules._without_spaces(tmp_path / "copy")
    assert (copy / "Kbuild").stat().st_mtime_ns == before, "make would compile everything again"


def test_series_is_applied_to_tree_on_request_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patched_sources, "ROOT", tmp_path)
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "series").write_text("0001.patch\n")
    (folder / "0001.patch").write_text(
        "diff --git a/module.c b/module.c\n--- a/module.c\n+++ b/module.c\n"
        "@@ -1 +1 @@\n-module.c\n+patched\n"
    )
    patched = dataclasses.replace(
        UNPATCHED, kernel=dataclasses.replace(UNPATCHED.kernel, series="patches")
    )
    assert get(tree, patched).metadata["series"] is None
    asked = KernelOptions(tree=tree, apply_series=True)
    kernel = build_pipeline.provide_kernel(patched, asked, SilentProgress())
    assert kernel.metadata["series"]["sha256"] == patch_series.load_series(folder, "patches").sha256
    module = kernel.modules / "lib/modules" / kernel.release / "module.ko"
    assert module.read_text() == "patched\n"
    (stored,) = (kernel.directory / kernel_cache.PATCHES).iterdir()
    assert stored.read_bytes() == (folder / "0001.patch").read_bytes()
    assert kernel.metadata["series"]["patches"][0]["sha256"] == stored.name
    assert (tree / "module.c").read_text() == "module.c\n"


def test_tree_options_need_a_tree(tree: Path) -> None:
    assert tree
    with pytest.raises(UserError, match="--kernel-tree"):
        build_pipeline.provide_kernel(UNPATCHED, KernelOptions(apply_series=True), SilentProgress())


def test_too_small_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = HostLimits(2, 1024, "host", "cgroup")
    with pytest.raises(UserError, match=r"1\.0 GiB of memory available in this cgroup"):
        resource_check.require_resources(tmp_path, clean_build=False, limits=small)
    monkeypatch.setattr(resource_check, "CLEAN_BUILD_DISK_GIB", 1e9)
    with pytest.raises(UserError, match="GiB free"):
        resource_check.require_resources(tmp_path, clean_build=True, limits=small)


def test_builder_has_methods_of_fake() -> None:
    assert {"make", "build"} <= set(vars(kbuild.Builder))
