# SPDX-License-Identifier: GPL-2.0-only
"""The image's key: the same for the same content anywhere, another one for any change."""

import os
import shutil
from pathlib import Path

import pytest

from fixtures.host.rootfs import erofs_image
from fixtures.host.rootfs.content_hashes import ContentHashes


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a library that the program of every plan needs."""
    path = tmp_path / "libx.so.1"
    path.write_text("library 1")
    (tmp_path / "ld.so.cache").write_text("libx.so.1 => path")
    monkeypatch.setattr(erofs_image, "LOADER_CACHE", tmp_path / "ld.so.cache")
    monkeypatch.setattr(
        erofs_image, "_find_libraries", lambda _: iter([(path, Path("usr/lib/libx.so.1"))])
    )
    return path


def environment(folder: Path) -> list[tuple[Path, Path]]:
    """Make a virtual environment, and return its plan."""
    (folder / "site").mkdir(parents=True)
    for name in ("program", "site/a.py", "site/b.py"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o755 if name == "program" else 0o644)
    return [(folder / name, Path("opt") / name) for name in ("program", "site/a.py", "site/b.py")]


def key(plan: list[tuple[Path, Path]], memory: Path) -> str:
    """Return the key of an image, by hashes that are remembered."""
    hashes = ContentHashes(memory)
    found = erofs_image._fingerprint(erofs_image._with_libraries(plan, hashes), hashes)
    hashes.save()
    return found


@pytest.mark.usefixtures("library")
def test_environments_with_same_packages_share_an_image(tmp_path: Path) -> None:
    first, second = environment(tmp_path / "clone 1"), environment(tmp_path / "clone 2")
    for source, _ in second:
        os.utime(source, (1, 1))
    assert key(first, tmp_path / "memory") == key(second, tmp_path / "memory")


def test_any_change_gives_another_key(tmp_path: Path, library: Path) -> None:
    memory = tmp_path / "memory"
    plan = environment(tmp_path / "clone")
    keys = [key(plan, memory)]
    times = plan[0][0].stat()
    plan[0][0].write_text("PROGRAM")  # same size
    os.utime(plan[0][0], ns=(times.st_atime_ns, times.st_mtime_ns))
    keys.append(key(plan, memory))
    plan[1][0].chmod(0o755)
    keys.append(key(plan, memory))
    library.write_text("library 2")  # replaced in place: the loader's cache stays the same
    keys.append(key(plan, memory))
    keys.append(key(plan[:-1], memory))
    assert len(set(keys)) == len(keys)


def test_hash_is_remembered_and_damaged_memory_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, file = tmp_path / "memory", tmp_path / "file"
    file.write_text("content")
    hashes = ContentHashes(memory)
    expected = hashes.of(file)
    hashes.save()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: pytest.fail("the file is read again"))
        patch.setattr(Path, "read_text", lambda *_, **__: memory.read_bytes().decode())
        patch.setattr(Path, "read_bytes", lambda path: _read(path))
        assert ContentHashes(memory).of(file) == expected
    for text in ("", "[]", "{", f'{{"{file}": 7}}'):
        memory.write_text(text)
        assert ContentHashes(memory).of(file) == expected


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)


def test_unwritable_memory_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    hashes = ContentHashes(tmp_path / "file/memory")
    assert hashes.of(tmp_path / "file")
    hashes.save()


def test_libraries_are_found_again_after_an_update(tmp_path: Path) -> None:
    library = tmp_path / "libx.so.1"
    library.write_text("1")
    found: list[int] = []

    def find() -> list[tuple[Path, Path]]:
        found.append(1)
        return [(library, Path("usr/lib/libx.so.1"))]

    for text, searches in (("1", 1), ("1", 1), ("2", 2), ("2", 2)):
        library.write_text(text)
        hashes = ContentHashes(tmp_path / "memory")
        assert hashes.libraries("key", find) == [(library, Path("usr/lib/libx.so.1"))]
        hashes.save()
        assert len(found) == searches
    shutil.copy(library, tmp_path / "moved")
    library.unlink()
    with pytest.raises(FileNotFoundError):
        ContentHashes(tmp_path / "memory").libraries("key", find)
