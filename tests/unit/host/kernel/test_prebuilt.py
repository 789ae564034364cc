# SPDX-License-Identifier: GPL-2.0-only
"""A prebuilt kernel: used as it is, or refused with one line."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.kernel.kernel_cli_options import KernelOptions
from fixtures.host.kernel.prebuilt import prebuilt_kernel
from fixtures.host.util.errors import UserError

RELEASE = "7.3.4-mine"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a bzImage that consists of a header with a release."""
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
    """Return the folder of its modules."""
    installed = tmp_path / "modules/lib/modules" / RELEASE
    installed.mkdir(parents=True)
    (installed / "modules.dep").write_text("")
    (installed / "a.ko").write_text("module")
    return tmp_path / "modules"


def test_image_is_used_as_it_is(image: Path, modules: Path) -> None:
    kernel = prebuilt_kernel(KernelOptions(image=image, modules=modules))
    assert (kernel.release, kernel.image, kernel.modules) == (RELEASE, image, modules)
    assert kernel.vmlinux is None
    image.with_name("vmlinux").write_text("elf")
    assert prebuilt_kernel(KernelOptions(image=image, modules=modules)).vmlinux


def test_folder_of_release_is_accepted(image: Path, modules: Path) -> None:
    inner = modules / "lib/modules" / RELEASE
    assert prebuilt_kernel(KernelOptions(image=image, modules=inner)).modules == modules


def test_changed_module_changes_key_but_not_image_key(image: Path, modules: Path) -> None:
    before = prebuilt_kernel(KernelOptions(image=image, modules=modules))
    (modules / "lib/modules" / RELEASE / "a.ko").write_text("another")
    after = prebuilt_kernel(KernelOptions(image=image, modules=modules))
    assert after.key != before.key
    assert after.image_key == before.image_key


def error_message(options: KernelOptions) -> str:
    """Return the error message for the options."""
    with pytest.raises(UserError) as caught:
        prebuilt_kernel(options)
    return str(caught.value)


def test_image_without_modules_is_refused(image: Path, modules: Path) -> None:
    assert "without --kernel-modules" in error_message(KernelOptions(image=image))
    assert "without --kernel-image" in error_message(KernelOptions(modules=modules))


def test_image_and_tree_are_refused(image: Path, modules: Path) -> None:
    options = KernelOptions(image=image, modules=modules, tree=Path())
    assert "give one of them" in error_message(options)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (KernelOptions(apply_series=True), "--apply-series"),
        (KernelOptions(patches="1"), "--patches"),
        (KernelOptions(mutant=Path("a.patch")), "--mutant"),
        (KernelOptions(tarball_sha256="0"), "--kernel-sha256"),
    ],
    ids=["apply-series", "patches", "mutant", "sha256"],
)
def test_source_option_is_refused(
    image: Path, modules: Path, options: KernelOptions, flag: str
) -> None:
    with pytest.raises(UserError, match=f"{flag} needs kernel sources"):
        prebuilt_kernel(replace(options, image=image, modules=modules))


def test_invalid_image_is_refused(tmp_path: Path, image: Path, modules: Path) -> None:
    missing = KernelOptions(image=tmp_path / "missing", modules=modules)
    assert "No such file" in error_message(missing)
    image.write_bytes(b"text")
    assert "not a bzImage" in error_message(KernelOptions(image=image, modules=modules))


def test_modules_of_another_release_are_refused(image: Path, modules: Path) -> None:
    (modules / "lib/modules" / RELEASE).rename(modules / "lib/modules/other")
    options = KernelOptions(image=image, modules=modules)
    assert f"no lib/modules/{RELEASE}" in error_message(options)


def test_modules_without_index_are_refused(image: Path, modules: Path) -> None:
    (modules / "lib/modules" / RELEASE / "modules.dep").unlink()
    assert "depmod" in error_message(KernelOptions(image=image, modules=modules))


def test_kernel_whose_root_drivers_are_modules_is_refused(image: Path, modules: Path) -> None:
    for name in ("fs/erofs/erofs.ko.xz", "drivers/block/virtio_blk.ko"):
        path = modules / "lib/modules" / RELEASE / "kernel" / name
        path.parent.mkdir(parents=True)
        path.write_text("module")
    message = error_message(KernelOptions(image=image, modules=modules))
    assert "CONFIG_EROFS_FS=y, CONFIG_VIRTIO_BLK=y (" in message
    assert "no initramfs" in message
