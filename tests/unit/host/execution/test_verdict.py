# SPDX-License-Identifier: GPL-2.0-only
"""Verdict of a test: one case for each verdict, and which one takes precedence."""

from typing import Any

import pytest

from fixtures.host.execution.run_test_in_vm import Execution
from fixtures.host.execution.verdict import TestVerdict, decide_verdict
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


def decide(what: Execution, reports: Any = GOOD, expected: tuple[str, ...] = ()) -> TestVerdict:
    return decide_verdict(what, reports, expected, lambda text: text)


def test_pass_without_splat_passes() -> None:
    assert decide(done()).verdict is Verdict.PASSED


def test_failed_assertion_fails() -> None:
    verdict = decide(done(), BAD)
    assert verdict.verdict is Verdict.FAILED
    assert "assert 1 == 2" in verdict.message


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_failed_fixture_is_error(when: str) -> None:
    assert decide(done(), [report(when, "failed", "boom")]).verdict is Verdict.ERROR


def test_skip_has_reason() -> None:
    verdict = decide(done(), [report("setup", "skipped", ("t.py", 1, "Skipped: no act_ct"))])
    assert (verdict.verdict, verdict.message) == (Verdict.SKIPPED, "no act_ct")


def test_expected_failure_is_xfail() -> None:
    verdict = decide(done(), [report("call", "skipped", "x", wasxfail="known")])
    assert verdict.verdict is Verdict.XFAIL


def test_splat_overrides_pass() -> None:
    verdict = decide(done(console=WARN))
    assert verdict.verdict is Verdict.SPLAT
    assert "nf_flow_table_core" in verdict.splat


def test_splat_message_has_assertion() -> None:
    assert "assert 1 == 2" in decide(done(console=WARN), BAD).message


def test_expected_splat_passes() -> None:
    assert decide(done(console=WARN), expected=("nf_flow_table",)).verdict is Verdict.PASSED


def test_missing_expected_splat_fails() -> None:
    assert decide(done(), expected=("nf_flow_table",)).verdict is Verdict.FAILED


def test_expected_splat_does_not_excuse_other_splat() -> None:
    assert decide(done(console=WARN), expected=("KASAN",)).verdict is Verdict.SPLAT


def test_qemu_exit_after_panic_is_panic() -> None:
    what = done(vm_failure="closed", kernel_panicked=True, console=WARN + PANIC, finished=None)
    assert decide(what, []).verdict is Verdict.PANIC


def test_qemu_exit_without_panic_is_lost() -> None:
    what = done(vm_failure="closed", vm_failure_detail="QEMU was killed by SIGKILL", finished=None)
    verdict = decide(what, [])
    assert verdict.verdict is Verdict.LOST
    assert "SIGKILL" in verdict.message


def test_silent_guest_is_hang() -> None:
    assert decide(done(vm_failure="silent", finished=None), []).verdict is Verdict.HANG


def test_unkillable_process_is_hang() -> None:
    stuck = {"how": "stuck", "stack": "in the kernel", "seconds": 3}
    assert decide(done(finished=stuck), []).verdict is Verdict.HANG


@pytest.mark.parametrize(
    "facts",
    [
        {"vm_failure": "silent", "finished": None},
        {"finished": {"how": "stuck", "stack": "in the kernel", "seconds": 3}},
    ],
    ids=["silent", "stuck"],
)
def test_splat_before_hang_is_splat(facts: dict[str, Any]) -> None:
    verdict = decide(done(console=WARN, **facts), [])
    assert verdict.verdict is Verdict.SPLAT
    assert "nf_flow_table_core" in verdict.message.splitlines()[0]
    assert "and then: the" in verdict.message


@pytest.mark.parametrize(
    "line",
    [
        "INFO: task modprobe:57 blocked for more than 10 seconds.",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks: { 1-... }",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [python3:58]",
        "Kernel panic - not syncing: NMI: Not continuing",
    ],
    ids=["hung-task", "rcu-stall", "soft-lockup", "nmi-panic"],
)
def test_hang_report_alone_is_hang(line: str) -> None:
    what = done(vm_failure="silent", finished=None, console=f"[    3.000000] {line}\n")
    assert decide(what, []).verdict is Verdict.HANG


def test_timeout_fails_with_stack() -> None:
    late = {"how": "timeout", "stack": "File t.py, line 3", "seconds": 3, "leaks": []}
    verdict = decide(done(finished=late), [])
    assert verdict.verdict is Verdict.FAILED
    assert "line 3" in verdict.message


def test_leak_is_error_and_named() -> None:
    verdict = decide(done(finished={**CLEAN, "leaks": ["network namespace canary"]}))
    assert verdict.verdict is Verdict.ERROR
    assert "canary" in verdict.message


def test_missing_report_is_infra() -> None:
    assert decide(done(), []).verdict is Verdict.INFRA


def test_unreadable_console_is_infra() -> None:
    assert decide(done(vm_failure="infra", vm_failure_detail="no console")).verdict is Verdict.INFRA
