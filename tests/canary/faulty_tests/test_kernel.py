# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that misbehave, driven through LKDTM and SysRq: material for ../test_canary.py.

Each of these has a verdict that is not its own doing to choose; see ``VERDICTS`` there.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

LKDTM = Path("/sys/kernel/debug/provoke-crash/DIRECT")


def provoke(what: str) -> None:
    """Have LKDTM do something bad (Documentation/fault-injection/provoke-crashes.rst)."""
    subprocess.run(["modprobe", "lkdtm"], check=True)
    LKDTM.write_text(what)


def test_panic() -> None:
    provoke("PANIC")


def test_panic_by_sysrq() -> None:
    Path("/proc/sysrq-trigger").write_text("c")


def test_bug() -> None:
    provoke("BUG")


def test_warning() -> None:
    provoke("WARNING")


@pytest.mark.expect_splat(r"WARNING: .*lkdtm")
def test_announced_warning() -> None:
    provoke("WARNING")


@pytest.mark.expect_splat(r"WARNING: .*lkdtm")
def test_announced_warning_that_does_not_come() -> None:
    pass


@pytest.mark.deadline(15)
def test_hung_task() -> None:
    """A task in uninterruptible sleep: the kernel's own detector names it."""
    Path("/proc/sys/kernel/hung_task_timeout_secs").write_text("2")
    provoke("HUNG_TASK")


@pytest.mark.deadline(5)
def test_bug_and_then_a_task_that_hangs() -> None:
    """As where an oops leaves a lock held that the next one waits for."""
    if child := os.fork():
        os.waitpid(child, 0)
        provoke("HUNG_TASK")
    provoke("BUG")


@pytest.mark.deadline(3)
def test_hard_loop_on_every_cpu() -> None:
    """Interrupts off and an endless loop on every CPU: nothing answers any more."""
    for cpu in range(1, os.cpu_count() or 1):
        if not os.fork():
            os.sched_setaffinity(0, {cpu})
            provoke("HARDLOCKUP")
    os.sched_setaffinity(0, {0})
    provoke("HARDLOCKUP")


def test_powered_off() -> None:
    Path("/proc/sysrq-trigger").write_text("o")
    time.sleep(60)


def test_flood_of_the_console() -> None:
    """Much text, and a complaint right at the end of it."""
    with Path("/dev/kmsg").open("w") as kmsg:
        for number in range(2000):
            kmsg.write(f"flood {number} {'.' * 60}\n")
            kmsg.flush()
    provoke("WARNING")
