# SPDX-License-Identifier: GPL-2.0-only
"""Two series differ only where a file says so."""

from pathlib import Path

import pytest

from fixtures.host.kernel.patch_series import load_series
from fixtures.host.patchcheck import series_differences
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT

_MAIL = """\
From 0000 Mon Sep 17 00:00:00 2001
Subject: [PATCH] net: a change

--- a line that starts as a removed one
---
 net/a.c | 4 ++--

diff --git a/net/a.c b/net/a.c
index 1..2 100644
--- a/net/a.c
+++ b/net/a.c
@@ -{place},3 +{place},3 @@ int f(void)
 {context}
-old
+{added}
-- last
++ last
--
2.39.5
"""


def _write(patches: Path, name: str, added: str, context: str = "int i;", place: int = 1) -> Path:
    folder = patches / name
    folder.mkdir(parents=True, exist_ok=True)
    mail = _MAIL.format(added=added, context=context, place=place)
    (folder / "0001-a.patch").write_text(mail)
    (folder / "series").write_text("0001-a.patch\n")
    return folder


@pytest.fixture
def port(tmp_path: Path) -> Path:
    """A port with the same change at another place, with another line next to it."""
    _write(tmp_path, "v2", "new")
    folder = _write(tmp_path, "v1", "new", context="long i;", place=7)
    (folder / series_differences.DIFFERENCES).write_text('# head\n\nport_of = "v2"\n')
    return folder


def test_changed_lines_are_those_of_hunks() -> None:
    mail = _MAIL.format(added="new", context="int i;", place=1).encode()
    lines = ["-old", "+new", "-- last", "++ last"]
    assert series_differences.changed_lines(mail) == {"net/a.c": lines}


def test_equal_changes_at_other_places_are_no_finding(port: Path) -> None:
    assert series_differences.compare_port(port) == []


@pytest.mark.parametrize("mended", ["v1", "v2"])
def test_change_in_one_series_is_a_finding_of_both(port: Path, mended: str) -> None:
    _write(port.parent, mended, "mended")
    for name in ("v1", "v2"):
        series = load_series(port.parent / name, name)
        (finding,) = series_differences.check_series_differences(series)
        assert finding.place == "v1/0001-a.patch: net/a.c"
        assert "+mended" in finding.text
        assert "differences.toml" in finding.text


def test_series_without_port_has_no_findings(port: Path) -> None:
    other = _write(port.parent, "v3", "something else")
    assert series_differences.check_series_differences(load_series(other, "v3")) == []


def test_listed_difference_is_no_finding_until_it_is_gone(port: Path) -> None:
    _write(port.parent, "v1", 'a\t"line" with \\n')
    series_differences.accept_differences(port, 'the reason "why" \\')
    assert series_differences.compare_port(port) == []
    other, (listed,) = series_differences.read_differences(port)
    assert (other, listed.reason) == ("v2", 'the reason "why" \\')
    assert (listed.there, listed.here) == (("+new",), ('+a\t"line" with \\n',))
    assert (port / series_differences.DIFFERENCES).read_text().startswith("# head\n")

    _write(port.parent, "v1", "new")
    (finding,) = series_differences.compare_port(port)
    assert "is not there" in finding.text


def test_accepted_differences_keep_their_reasons(port: Path) -> None:
    _write(port.parent, "v1", "other")
    series_differences.accept_differences(port, "first")
    series_differences.accept_differences(port, "second")
    _, (listed,) = series_differences.read_differences(port)
    assert listed.reason == "first"
    _write(port.parent, "v2", "newer")
    series_differences.accept_differences(port, "second")
    _, (listed,) = series_differences.read_differences(port)
    assert (listed.reason, listed.there, listed.here) == ("second", ("+newer",), ("+other",))


def test_change_beside_listed_difference_is_a_finding(port: Path) -> None:
    """A listed difference does not cover what is added to it in one series."""
    _write(port.parent, "v1", "other")
    series_differences.accept_differences(port, "why")
    patch = port / "0001-a.patch"
    patch.write_text(
        patch.read_text().replace(",3 @@ int", ",4 @@ int").replace("+other", "+other\n+x")
    )
    assert len(series_differences.compare_port(port)) == 2


def test_other_patch_names_are_a_finding(port: Path) -> None:
    (port / "0001-a.patch").rename(port / "0001-b.patch")
    (port / "series").write_text("0001-b.patch\n")
    (finding,) = series_differences.compare_port(port)
    assert finding.place == "v1/series"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port_of = 3", "port_of must name"),
        ('port_of = "v9"', "port_of must name"),
        ("port_of =", "differences.toml"),
        ('port_of = "v2"\ndifference = 1', "write \\[\\[difference\\]\\]"),
        ('port_of = "v2"\n[[difference]]\nfile = "a"', "difference 1 must have"),
        (
            'port_of = "v2"\n[[difference]]\n'
            'patch = "p"\nfile = "a"\nreason = " "\nthere = ""\nhere = ""',
            "difference 1 needs a reason",
        ),
    ],
)
def test_malformed_file_is_refused(port: Path, text: str, message: str) -> None:
    (port / series_differences.DIFFERENCES).write_text(text)
    with pytest.raises(UserError, match=message):
        series_differences.read_differences(port)


@pytest.mark.parametrize(
    "port", sorted((ROOT / "patches").glob(f"*/{series_differences.DIFFERENCES}")), ids=str
)
def test_series_of_this_project_differ_as_listed(port: Path) -> None:
    assert [str(found) for found in series_differences.compare_port(port.parent)] == []
