# SPDX-License-Identifier: GPL-2.0-only
"""What bpftool prints, parsed; and a program that fails, or prints without end."""

from pathlib import Path

import pytest

from fixtures.guest.bpf import tree_tools
from fixtures.guest.bpf.bpftool import (
    Bpftool,
    BpftoolError,
    key_arguments,
    pairs_from_json,
    pairs_from_text,
)

_KEYS = [bytes(range(20)), bytes(range(100, 120))]
_VALUES = [bytes(range(200, 233)), bytes(33)]
_PAIRS = list(zip(_KEYS, _VALUES, strict=True))


def _hex_lines(data: bytes) -> str:
    """Return octets as bpftool prints them: 16 in a line, the middle marked by two spaces."""
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    return "\n".join(f"{row[:8].hex(' ')}  {row[8:].hex(' ')}".strip() for row in rows)


def test_plain_dump_is_parsed() -> None:
    text = "".join(
        f"key:\n{_hex_lines(key)}\nvalue:\n{_hex_lines(value)}\n" for key, value in _PAIRS
    )
    assert pairs_from_text(f"{text}Found 2 elements\n") == _PAIRS
    assert pairs_from_text("Found 0 elements\n") == []


def test_json_dump_is_parsed() -> None:
    dumped = [{"key": [hex(o) for o in k], "value": [hex(o) for o in v]} for k, v in _PAIRS]
    assert pairs_from_json(dumped) == _PAIRS
    assert key_arguments(b"\x00\xff") == ["key", "hex", "00", "ff"]


@pytest.fixture
def script(tmp_path: Path) -> Bpftool:
    """A program that prints its arguments and fails if the first one is not ``--json``."""
    path = tmp_path / "bpftool"
    path.write_text(
        '#!/bin/sh\necho "[1]"\n[ "$1" = --json ] || { echo "Error: $*" >&2; exit 2; }\n'
    )
    path.chmod(0o755)
    return Bpftool(path)


def test_failure_has_both_streams(script: Bpftool) -> None:
    assert script.json("map") == [1]
    with pytest.raises(BpftoolError, match=r"bpftool map show: \[1\]\nError: map show"):
        script.run("map", "show")


def test_lines_stop_a_program_that_goes_on() -> None:
    with Bpftool(Path("yes")).lines("probe") as lines:
        assert next(lines) == "probe"


def test_tree_tool_is_none_if_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWMAP_TREE_TOOLS", str(tmp_path))
    assert tree_tools.tree_tool(tree_tools.BPFTOOL) is None
    (tmp_path / tree_tools.BPFTOOL).touch()
    assert tree_tools.tree_tool(tree_tools.BPFTOOL) == tmp_path / tree_tools.BPFTOOL
