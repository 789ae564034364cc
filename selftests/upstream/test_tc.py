# SPDX-License-Identifier: GPL-2.0-only
"""Kernel selftests of the tc action ct: tools/testing/selftests/tc-testing."""

import contextlib
import shutil
import sys

import pytest

from fixtures.guest.kernel import modules
from fixtures.guest.runtime import kselftest_runner

_TIMEOUT = 100  # seconds

# tdc.py reads the paths of its programs from tdc_config_local.py.
_LOCAL_CONFIG = "EXTRA_NAMES = {programs!r}\n"


@pytest.mark.clause("UP-1.1")
@pytest.mark.deadline(_TIMEOUT + 20)
def test_tdc_category_ct_passes() -> None:
    """tdc.py passes its tests of category ct."""
    folder = kselftest_runner.KSELFTEST_DIR / "tc-testing"
    if not (folder / "tdc.py").exists():
        pytest.skip("the tree has no tc-testing/tdc.py")
    programs = {name.upper(): shutil.which(name) for name in ("tc", "ip", "ethtool")}
    (folder / "tdc_config_local.py").write_text(_LOCAL_CONFIG.format(programs=programs))
    # tdc.py adds an ifb device. That would load ifb with its default of two more devices, which
    # tdc.py does not remove.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        modules.load("ifb", "numifbs=0")
    kselftest_runner.run_kselftest("tc-testing", (sys.executable, "./tdc.py", "-c", "ct"), _TIMEOUT)
