# SPDX-License-Identifier: GPL-2.0-only
"""cover-letter.txt: content, line format, and acceptance by git-mailinfo."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.guest.race.python_race import RaceReport as RaceReport
from fixtures.guest.race.python_race import TimedCall
from fixtures.host.model.contract_clauses import parse
from fixtures.host.model.results import Verdict
from fixtures.host.report import cover_letter, summary_json
from tests.unit.host.report import run_samples

CLAUSES = parse(run_samples.CONTRACT)

HOSTILE = st.sampled_from(
    ["--- a/file", "diff --git a/x b/x", "Index: x", "From x", "x" * 200, "…\u202e\x00ü\n---", ""]
)


def _race(rounds: int, apart: int, seconds: float) -> str:
    calls = [TimedCall(0, 2, 0)] * rounds
    others = [TimedCall(1, 3, 0)] * (rounds - apart) + [TimedCall(5, 6, 0)] * apart
    return str(RaceReport(7, {"one": calls, "other": others}, seconds=seconds))


def test_cover_letter_has_results_kernel_and_command() -> None:
    run = run_samples.run(
        run_samples.result("selftests/lookup/a.py::x", clauses=("MM-1", "MM-2")),
        run_samples.result(
            "selftests/races/a.py::y", stdout=_race(20, 5, 0) + "\n" + _race(7, 0, 1.5)
        ),
        run_samples.result("selftests/snoop/a.py::z", Verdict.SKIPPED, message="no act_ct here"),
        run_samples.result("selftests/snoop/a.py::w", Verdict.XFAIL, message="known upstream"),
        argv=("--vmconfig", "base", "-k", "a or b"),
    )
    assert (
        cover_letter.render([run], CLAUSES)
        == f"""\
Passed: 2 tests passed on 7.3.4-suite (base), none failed, 2 skipped.

Linux 7.3.4-suite, profile base:
  base      debian 7.3.4-1, patched by Debian
  series    v7.3, 1 patch
  sha256
    {"ab" * 32}
  config    tinyconfig, base.config
  compiler  gcc 12.2.0
  QEMU      7.2.22
  ran       2026-01-01 10:00 UTC, 1 min 32 s; tcg, deadlines x4, An x86
            CPU, Debian 12

area            passed  failed skipped
snoop                0       0       2
lookup               1       0       0
races                1       0       0
all                  2       0       2

Sentences of the contract that hold (2 of 4): MM-1..2
Sentences not tested in this run: SN-1..2

Races: 1 test, 27 rounds; the actors overlapped in 22 of these.

Skipped, or failed as expected:
  1 test: expected to fail: known upstream
  1 test: no act_ct here

To repeat, in a clone of the suite:
    tox -e vm -- --vmconfig base -k 'a or b'
"""
    )


def test_command_can_be_pasted_into_a_shell() -> None:
    argv = ("-k", "a and 'b' or \"c\"", *(f"selftests/lookup/test_{at}.py" for at in range(9)))
    text = cover_letter.render([run_samples.run(run_samples.result(), argv=argv)], ())
    command = text[text.index("    tox ") :]
    assert max(map(len, command.splitlines())) <= cover_letter.WIDTH
    script = f"tox() {{ printf '%s\\n' \"$@\"; }}\n{command}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["-e", "vm", "--", *argv]


@settings(max_examples=60)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, st.sampled_from(Verdict)), max_size=4), HOSTILE)
def test_no_line_is_too_long_or_starts_a_patch(
    tests: list[tuple[str, str, Verdict]], note: str
) -> None:
    results = [
        run_samples.result(f"{name}{at}", verdict, message=message, clauses=("MM-1", "ZZ-3"))
        for at, (name, message, verdict) in enumerate(tests)
    ]
    run = summary_json.sanitize_run(
        run_samples.run(*results, profile=note, kernel_release=note, notes=(note,), started=note)
    )
    text = cover_letter.render([run, summary_json.sanitize_run(run_samples.run(*results))], CLAUSES)
    assert text.isascii()
    for line in text.splitlines():
        assert len(line) <= cover_letter.WIDTH
        assert not re.match(r"---|diff -|Index: |>?From ", line)
        assert line == line.rstrip()


@pytest.mark.parametrize(
    "body", ["", "diff --git a/x b/x\n--- a/x\n+++ b/x\nIndex: y"], ids=["empty", "diff"]
)
def test_git_mailinfo_finds_the_patch_after_the_text(tmp_path: Path, body: str) -> None:
    run = run_samples.run(run_samples.result(message=body, verdict=Verdict.FAILED), notes=(body,))
    patch = "diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+1\n"
    mail = (
        "From: A <a@b.example>\nSubject: [PATCH] add f\n\nWhy.\n---\n\n"
        f"{cover_letter.render([run], CLAUSES)}\n{patch}"
    )
    done = subprocess.run(
        ["git", "mailinfo", "--scissors", "msg", "patch"],
        cwd=tmp_path,
        input=mail,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Subject: add f" in done.stdout
    assert (tmp_path / "msg").read_text() == "Why.\n"
    numstat = ["git", "apply", "--numstat", "patch"]
    found = subprocess.run(numstat, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "1\t0\tf\n"
