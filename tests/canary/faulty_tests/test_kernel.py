# SPDX-License-Identifier: GPL-2.0-only
"""Guest tests that make the kernel crash, hang or warn, through LKDTM and SysRq.

../test_verdicts.py runs them; its table ``VERDICTS`` has the verdict that each must get.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

LKDTM = Path("/sys/kernel/debug/provoke-crash/DIRECT")


def trigger_lkdtm(crashpoint: str) -> None:
    """Trigger a crash type of LKDTM (Documentation/fault-injection/provoke-crashes.rst)."""
    subprocess.run(["modprobe", "lkdtm"], check=True)
    LKDTM.write_text(crashpoint)


def test_panic() -> None:
    trigger_lkdtm("PANIC")


def test_panic_by_sysrq() -> None:
    Path("/proc/sysrq-trigger").write_text("c")


def test_bug() -> None:
    trigger_lkdtm("BUG")


def test_warning() -> None:
    trigger_lkdtm("WARNING")


@pytest.mark.expect_splat(r"WARNING: .*lkdtm")
def test_expected_warning() -> None:
    trigger_lkdtm("WARNING")


@pytest.mark.expect_splat(r"WARNING: .*lkdtm")
def test_expected_warning_missing() -> None:
    pass


@pytest.mark.deadline(15)
def test_hung_task() -> None:
    """A task sleeps uninterruptibly; the kernel's hung task detector reports it."""
    Path("/proc/sys/kernel/hung_task_timeout_secs").write_text("2")
    trigger_lkdtm("HUNG_TASK")


@pytest.mark.deadline(5)
def test_bug_before_hung_task() -> None:
    """A BUG, then a task that hangs, as on a lock that the oops left held."""
    if child := os.fork():
        os.waitpid(child, 0)
        trigger_lkdtm("HUNG_TASK")
    trigger_lkdtm("BUG")


@pytest.mark.deadline(3)
def test_hard_lockup_on_every_cpu() -> None:
    """Every CPU loops with interrupts disabled: the guest handles neither messages nor SysRq."""
    for cpu in range(1, os.cpu_count() or 1):
        if not os.fork():
            os.sched_setaffinity(0, {cpu})
            trigger_lkdtm("HARDLOCKUP")
    os.sched_setaffinity(0, {0})
    trigger_lkdtm("HARDLOCKUP")


def test_guest_powers_off() -> None:
    Path("/proc/sysrq-trigger").write_text("o")
    time.sleep(60)


def test_warning_after_console_flood() -> None:
    """The warning is the last output of a test that writes 2000 lines to the console."""
    with Path("/dev/kmsg").open("w") as kmsg:
        for number in range(2000):
            kmsg.write(f"flood {number} {'.' * 60}\n")
            kmsg.flush()
    trigger_lkdtm("WARNING")
