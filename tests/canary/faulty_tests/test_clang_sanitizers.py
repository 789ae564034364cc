# SPDX-License-Identifier: GPL-2.0-only
"""Guest tests that make a sanitizer report that only clang's kernels have: KMSAN, kCFI.

../test_verdicts.py runs them in the profiles kmsan and cfi; elsewhere they are skipped.
"""

import subprocess
from pathlib import Path

import pytest

_LKDTM = Path("/sys/kernel/debug/provoke-crash/DIRECT")
_SYMBOLS = Path("/proc/kallsyms")


def _trigger(crash_type: str, option: str, symbol: str) -> None:
    """Trigger a crash type of LKDTM, in a kernel that has a sanitizer.

    Args:
        crash_type: LKDTM's name.
        option: the sanitizer's option, for the reason of a skip.
        symbol: a function that only a kernel with this option has.
    """
    if f" {symbol}\n" not in _SYMBOLS.read_text(encoding="utf-8"):
        pytest.skip(f"no {option}")
    subprocess.run(["modprobe", "lkdtm"], check=True)
    _LKDTM.write_text(crash_type)


def test_uninitialised_memory() -> None:
    """LKDTM searches memory that was freed and allocated again, and not written since."""
    _trigger("SLAB_INIT_ON_ALLOC", "CONFIG_KMSAN", "kmsan_report")


def test_call_of_another_type() -> None:
    """LKDTM calls a function that returns an int as one that returns nothing."""
    _trigger("CFI_FORWARD_PROTO", "CONFIG_CFI", "report_cfi_failure")
