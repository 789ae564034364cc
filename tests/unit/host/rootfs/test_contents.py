# SPDX-License-Identifier: GPL-2.0-only
"""Contents of the root images: each entry has a reason, and a missing file is named."""

import tomllib
from pathlib import Path

import pytest

from fixtures.host.rootfs import erofs_image, shared_libs
from fixtures.host.util.errors import UserError

CONTENTS = tomllib.loads((Path(erofs_image.__file__).parent / "contents.toml").read_text())
EXTRA_LISTS = ("upstream", "strace")


def test_every_entry_has_a_reason() -> None:
    lists = [CONTENTS[name] for name in ("programs", "libraries", "distributions", "packages")]
    lists += [CONTENTS[name][kind] for name in EXTRA_LISTS for kind in ("programs", "files")]
    assert all(why for entries in lists for why in entries.values())
    assert set(CONTENTS) == {
        "programs",
        "libraries",
        "distributions",
        "packages",
        *EXTRA_LISTS,
    }


def test_extra_list_adds_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(erofs_image, "_program", lambda name: tmp_path / name)
    monkeypatch.setattr(shared_libs, "find_library", lambda name: tmp_path / name)
    monkeypatch.setattr(Path, "is_file", lambda _self: True)
    plain = {str(goes) for _, goes in erofs_image._plan()}
    more = {str(goes) for _, goes in erofs_image._plan(["upstream"])}
    assert plain < more
    assert {"usr/bin/bash", "usr/bin/socat", "etc/protocols"} <= more - plain


def test_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lists = tmp_path / "contents.toml"
    lists.write_text(
        "[programs]\n[libraries]\n[distributions]\n[upstream.programs]\n"
        '[upstream.files]\n"/no/such/file" = "a missing file"\n'
    )
    monkeypatch.setattr(erofs_image, "_CONTENTS", lists)
    with pytest.raises(UserError, match="/no/such/file is missing"):
        erofs_image._plan(["upstream"])
