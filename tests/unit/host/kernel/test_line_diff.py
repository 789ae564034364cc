# SPDX-License-Identifier: GPL-2.0-only
"""Unchanged lines by git diff, whatever the user's git configuration says."""

from pathlib import Path

import pytest

from fixtures.host.kernel.line_diff import unchanged_lines

CONFIGURATION = """
[diff]
    external = /bin/true
    noprefix = true
    algorithm = patience
    wsErrorHighlight = all
[color]
    ui = always
[core]
    attributesFile = {folder}/attributes
"""


@pytest.mark.parametrize("variable", ["", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"])
def test_configuration_of_user_does_not_hide_hunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "attributes").write_text("* -diff\n")
    (tmp_path / "gitconfig").write_text(CONFIGURATION.format(folder=tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    if variable:
        monkeypatch.setenv(variable, {"GIT_DIFF_OPTS": "-u9"}.get(variable, "/bin/true"))
    assert unchanged_lines(b"a\nb\nc\n", b"a\nx\nc\nd\n") == {1, 3}


def test_bytes_that_are_no_text_are_compared(tmp_path: Path) -> None:
    assert tmp_path
    assert unchanged_lines(b"a\n\0b\n", b"a\n\0c\n") == {1}
