# SPDX-License-Identifier: GPL-2.0-only
"""What counts as new, what as a change of layout, and how the run ends."""

from pathlib import Path

import pytest

from fixtures.host.patchcheck import cli, compiler_warnings, kernel_doc, uapi_headers
from fixtures.host.patchcheck.finding import Finding
from fixtures.host.util.errors import UserError


def test_layout_is_compared_line_by_line(tmp_path: Path) -> None:
    agreed = tmp_path / uapi_headers.LAYOUT
    (missing,) = uapi_headers._compare("a\n", agreed, accept=False)
    assert "--accept-layout" in missing.text

    assert uapi_headers._compare("a\nb\n", agreed, accept=True) == []
    assert uapi_headers._compare("a\nb\n", agreed, accept=False) == []
    assert [f.text for f in uapi_headers._compare("a\nc\n", agreed, accept=False)] == ["-b", "+c"]


def test_kernel_doc_speaks_of_what_is_new_only(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/kernel-doc").write_text(
        "import sys\n"
        "print(\"Warning: a.h:3 struct member 'old' not described in 'thing'\")\n"
        "print(\"Warning: a.h:9 struct member 'fresh' not described in 'thing'\")\n"
        "sys.exit(2)\n"
    )
    found = kernel_doc.kernel_doc(["a.h", "Kconfig", "tools/b.c"], {"a.h": b"int old;"}, tmp_path)
    assert found == [Finding("a.h:9", "struct member 'fresh' not described in 'thing'")]


def test_kernel_doc_that_fails_without_a_warning_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/kernel-doc").write_text("raise SystemExit('broken')\n")
    (found,) = kernel_doc.kernel_doc(["a.h"], {}, tmp_path)
    assert "broken" in found.text


def test_status_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    checks: dict[str, cli.Check] = {"good": list, "bad": lambda: [Finding("a.c:1", "odd")]}
    assert cli._run(checks, ["good"]) == 0
    assert cli._run(checks, ["good", "bad"]) == 1
    assert "a.c:1: odd" in capsys.readouterr().out
    with pytest.raises(UserError, match="there are good, bad"):
        cli._run(checks, ["none"])


@pytest.mark.parametrize(
    ("line", "text", "ours"),
    [
        ('MODULE_LICENSE("GPL");', "error: bad constant expression", False),
        ("int a[n];", "error: bad constant expression", True),
        ('MODULE_LICENSE("GPL");', "warning: odd", True),
    ],
)
def test_what_sparse_says_of_every_module_is_not_the_series(
    tmp_path: Path, line: str, text: str, ours: bool
) -> None:
    (tmp_path / "a.c").write_text(f"{line}\n")
    hit = compiler_warnings._MESSAGE.search(f"../a.c:1:5: {text}")
    assert hit
    assert compiler_warnings._of_the_checker(tmp_path, hit) is not ours
