# SPDX-License-Identifier: GPL-2.0-only
"""A cache that runs may damage: on a file system of its own, with the kernel of the real cache."""

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

REMOVABLE = ("images", "snapshots", "bpf", "engine", "hashes.json", "kvm.json")
"""What runs make again in some seconds or half a minute."""

_CONTENT = ("images", "bpf", "engine", "kernels")
"""Folders whose entries have the same content under the same name."""


def make_cache(folder: Path, real: Path, kernel: Path) -> None:
    """Make a cache that has a kernel, and knows the sources that it was built from.

    Args:
        folder: the new cache.
        real: the user's cache; only read.
        kernel: the kernel's folder in it.
    """
    for name in ("kernels", "sources"):
        (folder / name).mkdir(parents=True)
    (folder / "kernels" / kernel.name).symlink_to(kernel)
    for path in (real / "sources").glob("*"):
        if path.suffix == ".json":
            shutil.copy2(path, folder / "sources")
        elif path.is_dir() and not path.name.startswith("."):
            (folder / "sources" / path.name).symlink_to(path)
    # Pruning would follow the links.
    (folder / "last-prune").touch()


def make_cold(folder: Path, names: Sequence[str]) -> None:
    """Remove parts of a cache that no run uses."""
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def content(folder: Path) -> dict[str, str]:
    """Return the sha256 of each complete file by its path, links followed."""
    found = {}
    for kind in _CONTENT:
        for entry in sorted((folder / kind).iterdir()):
            if entry.name.startswith((".", "staging-")) or entry.suffix == ".lock":
                continue  # leftovers and locks
            paths = [entry] if entry.is_file() else sorted(entry.rglob("*"))
            for path in paths:
                if path.is_file() and path.name != "hashes.json":
                    with path.open("rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    found[path.relative_to(folder).as_posix()] = digest
    return found


def history_errors(folder: Path) -> str:
    """Return what SQLite finds wrong with the run history: ``ok`` if nothing."""
    path = folder / "ledger/history.sqlite"
    if not path.exists():
        return "ok"
    with closing(sqlite3.connect(path)) as database:
        return "; ".join(row[0] for row in database.execute("PRAGMA integrity_check"))


def fill(folder: Path) -> Path:
    """Write a file until the file system is full, and return it."""
    path = folder / f"ballast-{time.monotonic_ns()}"
    with path.open("wb", buffering=0) as file:
        try:
            for size in (1 << 20, 1 << 12):
                while True:
                    free = os.statvfs(folder)
                    if free.f_bavail * free.f_frsize < size:
                        break
                    file.write(bytes(size))
        except OSError:
            pass  # a run took the rest
    return path
