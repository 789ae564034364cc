# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the series: new warnings, layout changes, and the exit status."""

from pathlib import Path

import pytest

from fixtures.host.patchcheck import cli, compiler_warnings, kernel_doc, uapi_headers
from fixtures.host.patchcheck.finding import Finding
from fixtures.host.util.errors import UserError


def test_layout_differences_are_findings(tmp_path: Path) -> None:
    expected = tmp_path / uapi_headers.LAYOUT_FILE
    (missing,) = uapi_headers._compare("a\n", expected, accept=False)
    assert "--accept-layout" in missing.text

    assert uapi_headers._compare("a\nb\n", expected, accept=True) == []
    assert uapi_headers._compare("a\nb\n", expected, accept=False) == []
    assert [f.text for f in uapi_headers._compare("a\nc\n", expected, accept=False)] == ["-b", "+c"]


def test_kernel_doc_reports_only_new_warnings(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/kernel-doc").write_text(
        "import sys\n"
        "print(\"Warning: a.h:3 struct member 'old' not described in 'thing'\")\n"
        "print(\"Warning: a.h:9 struct member 'fresh' not described in 'thing'\")\n"
        "sys.exit(2)\n"
    )
    found = kernel_doc.check_kernel_doc(
        ["a.h", "Kconfig", "tools/b.c"], {"a.h": b"int old;"}, tmp_path
    )
    assert found == [Finding("a.h:9", "struct member 'fresh' not described in 'thing'")]


def test_kernel_doc_failure_without_warning_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/kernel-doc").write_text("raise SystemExit('broken')\n")
    (found,) = kernel_doc.check_kernel_doc(["a.h"], {}, tmp_path)
    assert "broken" in found.text


def test_findings_set_exit_status_and_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    checks: dict[str, cli.Check] = {"good": list, "bad": lambda: [Finding("a.c:1", "odd")]}
    assert cli._run(checks, ["good"]) == 0
    assert cli._run(checks, ["good", "bad"]) == 1
    assert "a.c:1: odd" in capsys.readouterr().out
    with pytest.raises(UserError, match="choose from good, bad"):
        cli._run(checks, ["none"])


@pytest.mark.parametrize(
    ("line", "text", "ours"),
    [
        ('MODULE_LICENSE("GPL");', "error: bad constant expression", False),
        ("int a[n];", "error: bad constant expression", True),
        ('MODULE_LICENSE("GPL");', "warning: odd", True),
    ],
)
def test_sparse_error_for_module_macro_is_ignored(
    tmp_path: Path, line: str, text: str, ours: bool
) -> None:
    (tmp_path / "a.c").write_text(f"{line}\n")
    hit = compiler_warnings._MESSAGE.search(f"../a.c:1:5: {text}")
    assert hit
    assert compiler_warnings._is_sparse_bug(tmp_path, hit) is not ours


def test_old_name_of_check_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run({"bisectability": list}, ["boots"]) == 0
    captured = capsys.readouterr()
    assert "ok     bisectability" in captured.out
    assert "renamed to --only bisectability" in captured.err


def test_kernel_doc_in_perl_is_run_with_perl(tmp_path: Path) -> None:
    """Kernels before kernel-doc's rewrite in Python, such as 6.12."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/kernel-doc").write_text(
        "#!/usr/bin/env perl\n"
        "print STDERR \"a.h:3: warning: struct member 'old' not described in 'thing'\\n\";\n"
        "print STDERR \"a.h:9: warning: struct member 'fresh' not described in 'thing'\\n\";\n"
        'print STDERR "a.h:5: warning: expecting prototype for enum x. Prototype was for enum '
        'old instead\\n";\n'
        "exit 2;\n"
    )
    found = kernel_doc.check_kernel_doc(["a.h"], {"a.h": b"int old;"}, tmp_path)
    assert found == [Finding("a.h:9", "struct member 'fresh' not described in 'thing'")]
