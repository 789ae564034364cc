# SPDX-License-Identifier: GPL-2.0-only
"""From what happened to a verdict: one case for each, and who goes before whom."""

from typing import Any

import pytest

from fixtures.host.execution.executor import Execution
from fixtures.host.execution.verdict import Judgement, judge
from fixtures.host.model.results import Verdict

WARN = "[    1.000000] WARNING: CPU: 0 at net/netfilter/nf_flow_table_core.c:1\n"
PANIC = "[    2.000000] Kernel panic - not syncing: Fatal exception\n"
CLEAN: dict[str, Any] = {"how": "exited", "code": 0, "leaks": []}


def report(when: str, outcome: str = "passed", longrepr: Any = None, **more: Any) -> Any:
    made = pytest.TestReport(
        "t.py::test",
        ("t.py", 1, "test"),
        {},
        outcome,  # type: ignore[arg-type]  # parametrised
        longrepr,
        when,  # type: ignore[arg-type]  # parametrised
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


GOOD = [report("setup"), report("call"), report("teardown")]
BAD = [report("setup"), report("call", "failed", "assert 1 == 2"), report("teardown")]


def done(**facts: Any) -> Execution:
    made = Execution(seed=1)
    made.finished = dict(CLEAN)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def decide(what: Execution, reports: Any = GOOD, expected: tuple[str, ...] = ()) -> Judgement:
    return judge(what, reports, expected, lambda text: text)


def test_a_clean_pass() -> None:
    assert decide(done()).verdict is Verdict.PASSED


def test_a_failed_assertion() -> None:
    judged = decide(done(), BAD)
    assert judged.verdict is Verdict.FAILED
    assert "assert 1 == 2" in judged.message


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_a_failed_fixture_is_an_error(when: str) -> None:
    assert decide(done(), [report(when, "failed", "boom")]).verdict is Verdict.ERROR


def test_a_skip_keeps_its_reason() -> None:
    judged = decide(done(), [report("setup", "skipped", ("t.py", 1, "Skipped: no act_ct"))])
    assert (judged.verdict, judged.message) == (Verdict.SKIPPED, "no act_ct")


def test_an_expected_failure() -> None:
    judged = decide(done(), [report("call", "skipped", "x", wasxfail="known")])
    assert judged.verdict is Verdict.XFAIL


def test_a_complaint_goes_before_a_pass() -> None:
    judged = decide(done(console=WARN))
    assert judged.verdict is Verdict.SPLAT
    assert "nf_flow_table_core" in judged.splat


def test_a_complaint_does_not_hide_the_assertion() -> None:
    assert "assert 1 == 2" in decide(done(console=WARN), BAD).message


def test_an_announced_complaint_is_none() -> None:
    assert decide(done(console=WARN), expected=("nf_flow_table",)).verdict is Verdict.PASSED


def test_an_announced_complaint_must_come() -> None:
    assert decide(done(), expected=("nf_flow_table",)).verdict is Verdict.FAILED


def test_an_announcement_covers_no_other_complaint() -> None:
    assert decide(done(console=WARN), expected=("KASAN",)).verdict is Verdict.SPLAT


def test_a_panic() -> None:
    what = done(trouble="closed", panic=True, console=WARN + PANIC, finished=None)
    assert decide(what, []).verdict is Verdict.PANIC


def test_a_lost_machine() -> None:
    what = done(trouble="closed", detail="QEMU was killed by SIGKILL", finished=None)
    judged = decide(what, [])
    assert judged.verdict is Verdict.LOST
    assert "SIGKILL" in judged.message


def test_silence_is_a_hang() -> None:
    assert decide(done(trouble="silent", finished=None), []).verdict is Verdict.HANG


def test_a_process_that_cannot_be_killed_is_a_hang() -> None:
    stuck = {"how": "stuck", "stack": "in the kernel", "seconds": 3}
    assert decide(done(finished=stuck), []).verdict is Verdict.HANG


@pytest.mark.parametrize(
    "facts",
    [
        {"trouble": "silent", "finished": None},
        {"finished": {"how": "stuck", "stack": "in the kernel", "seconds": 3}},
    ],
    ids=["silent", "stuck"],
)
def test_a_complaint_goes_before_the_hang_that_follows(facts: dict[str, Any]) -> None:
    judged = decide(done(console=WARN, **facts), [])
    assert judged.verdict is Verdict.SPLAT
    assert "nf_flow_table_core" in judged.message.splitlines()[0]
    assert "and then: the" in judged.message


@pytest.mark.parametrize(
    "line",
    [
        "INFO: task modprobe:57 blocked for more than 10 seconds.",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks: { 1-... }",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [python3:58]",
        "Kernel panic - not syncing: NMI: Not continuing",
    ],
)
def test_what_the_kernel_says_of_a_hang_is_the_hang(line: str) -> None:
    what = done(trouble="silent", finished=None, console=f"[    3.000000] {line}\n")
    assert decide(what, []).verdict is Verdict.HANG


def test_a_test_that_does_not_end_fails_with_its_stack() -> None:
    late = {"how": "timeout", "stack": "File t.py, line 3", "seconds": 3, "leaks": []}
    judged = decide(done(finished=late), [])
    assert judged.verdict is Verdict.FAILED
    assert "line 3" in judged.message


def test_what_stayed_is_named() -> None:
    judged = decide(done(finished={**CLEAN, "leaks": ["network namespace canary"]}))
    assert judged.verdict is Verdict.ERROR
    assert "canary" in judged.message


def test_no_report_is_ours() -> None:
    assert decide(done(), []).verdict is Verdict.INFRA


def test_a_console_that_cannot_be_read_fails_closed() -> None:
    assert decide(done(trouble="infra", detail="no console")).verdict is Verdict.INFRA
