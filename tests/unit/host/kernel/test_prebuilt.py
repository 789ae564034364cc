# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that somebody else built: taken as it is, or refused in one line."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.kernel.build_options import KernelOptions
from fixtures.host.kernel.prebuilt import provide
from fixtures.host.util.errors import UserError

RELEASE = "7.3.4-mine"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A header of a bzImage that states a release."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    text = f"{RELEASE} (me@here) #1 SMP\0".encode()
    head[0x300 : 0x300 + len(text)] = text
    path = tmp_path / "bzImage"
    path.write_bytes(bytes(head))
    return path


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Modules for it."""
    installed = tmp_path / "modules/lib/modules" / RELEASE
    installed.mkdir(parents=True)
    (installed / "modules.dep").write_text("")
    (installed / "a.ko").write_text("module")
    return tmp_path / "modules"


def test_taken_as_it_is(image: Path, modules: Path) -> None:
    kernel = provide(KernelOptions(image=image, modules=modules))
    assert (kernel.release, kernel.image, kernel.modules) == (RELEASE, image, modules)
    assert kernel.vmlinux is None
    image.with_name("vmlinux").write_text("elf")
    assert provide(KernelOptions(image=image, modules=modules)).vmlinux


def test_the_folder_of_the_release_itself_will_do(image: Path, modules: Path) -> None:
    inner = modules / "lib/modules" / RELEASE
    assert provide(KernelOptions(image=image, modules=inner)).modules == modules


def test_a_changed_module_changes_the_key_but_not_the_images(image: Path, modules: Path) -> None:
    before = provide(KernelOptions(image=image, modules=modules))
    (modules / "lib/modules" / RELEASE / "a.ko").write_text("another")
    after = provide(KernelOptions(image=image, modules=modules))
    assert after.key != before.key
    assert after.image_key == before.image_key


def refused(options: KernelOptions) -> str:
    """The line that options are refused with."""
    with pytest.raises(UserError) as caught:
        provide(options)
    return str(caught.value)


def test_one_without_the_other(image: Path, modules: Path) -> None:
    assert "without --kernel-modules" in refused(KernelOptions(image=image))
    assert "without --kernel-image" in refused(KernelOptions(modules=modules))


def test_two_kinds_of_source(image: Path, modules: Path) -> None:
    options = KernelOptions(image=image, modules=modules, tree=Path())
    assert "give one of them" in refused(options)


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (KernelOptions(apply_series=True), "--apply-series"),
        (KernelOptions(patches="1"), "--patches"),
        (KernelOptions(mutant=Path("a.patch")), "--mutant"),
        (KernelOptions(tarball_sha256="0"), "--kernel-sha256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_of_sources(image: Path, modules: Path, given: KernelOptions, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag} is of sources"):
        provide(replace(given, image=image, modules=modules))


def test_no_kernel(tmp_path: Path, image: Path, modules: Path) -> None:
    gone = KernelOptions(image=tmp_path / "gone", modules=modules)
    assert "No such file" in refused(gone)
    image.write_bytes(b"text")
    assert "not a bzImage" in refused(KernelOptions(image=image, modules=modules))


def test_modules_of_another_release(image: Path, modules: Path) -> None:
    (modules / "lib/modules" / RELEASE).rename(modules / "lib/modules/other")
    options = KernelOptions(image=image, modules=modules)
    assert f"no lib/modules/{RELEASE}" in refused(options)


def test_modules_without_an_index(image: Path, modules: Path) -> None:
    (modules / "lib/modules" / RELEASE / "modules.dep").unlink()
    assert "depmod" in refused(KernelOptions(image=image, modules=modules))
