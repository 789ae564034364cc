# SPDX-License-Identifier: GPL-2.0-only
"""Text of a guest made safe to print, and formatted values."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.host.util.sanitize_text import (
    failure_headline,
    first_line,
    format_count,
    format_duration,
    format_time,
    sanitize,
    truncate,
)


@pytest.mark.parametrize(
    ("raw", "printed"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b(Bcharset", "charset"),
        ("nul\0bell\a", "nul\\x00bell\\x07"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        (b"\xff".decode(errors="surrogateescape"), "\\xff"),
        ("\ud800", "\\ud800"),
        ("next\x85line\u2028sep", "next\\x85line\\u2028sep"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ufffe\uffff", "\\ufffe\\uffff"),
        ("]]> & <b>", "]]> & <b>"),
    ],
)
def test_sanitize_escapes_unprintable_characters(raw: str, printed: str) -> None:
    assert sanitize(raw) == printed


@given(st.text(st.characters(codec=None)))
def test_sanitized_text_is_idempotent_and_valid_xml(raw: str) -> None:
    text = sanitize(raw)
    text.encode()
    element = ET.Element("a")
    element.text = text
    back = ET.fromstring(ET.tostring(element, encoding="unicode"))
    assert (back.text or "") == text
    assert sanitize(text) == text
    assert text.split("\n") == (text + "\n").splitlines()


def test_truncate_keeps_both_ends_and_notes_the_gap() -> None:
    text = truncate("a" * 5000 + "b" * 5000, 1000)
    assert text.startswith("aaa")
    assert text.endswith("bbb")
    assert "[… 9,060 characters left out here …]" in text
    assert len(text) <= 1000


def test_truncate_returns_short_text_unchanged() -> None:
    assert truncate("short", 5) == "short"


def test_first_line_skips_blank_lines() -> None:
    assert first_line("\n  \n  first   words \nsecond") == "first words"
    assert first_line("x" * 50, 10) == "x" * 9 + "…"
    assert first_line("\n\n") == ""


def test_headline_prefers_line_marked_by_pytest() -> None:
    assert failure_headline("def test():\n>   assert a == b\nE   assert 1 == 2\nE    +  where") == (
        "assert 1 == 2"
    )
    assert failure_headline("Kernel panic - not syncing") == "Kernel panic - not syncing"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.00 s"),
        (0.314, "0.31 s"),
        (9.999, "10.0 s"),
        (59.96, "1 min 00 s"),
        (185.4, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (3725, "1 h 02 min"),
    ],
)
def test_format_duration(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_format_count() -> None:
    assert [format_count(n, "test") for n in (0, 1, 1234)] == ["0 tests", "1 test", "1,234 tests"]


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2026-01-01T10:00:59Z", "2026-01-01 10:00 UTC"),
        ("2026-01-01T01:30:00+02:00", "2025-12-31 23:30 UTC"),
        ("", ""),
        ("some day", "some day"),
        ("2026-01-01", "2026-01-01"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_format_time(time: str, words: str) -> None:
    assert format_time(time) == words
