# SPDX-License-Identifier: GPL-2.0-only
"""tools/testing/selftests/tc-testing: the action ct, by tdc.py."""

import contextlib
import shutil
import sys

import pytest

from fixtures.guest.kernel import modules
from fixtures.guest.runtime import kselftest_runner

_SECONDS = 100

# tdc.py's own place for a machine that has its programs elsewhere.
_LOCAL = "EXTRA_NAMES = {names!r}\n"


@pytest.mark.clause("UP-1")
@pytest.mark.deadline(_SECONDS + 20)
def test_action_ct() -> None:
    folder = kselftest_runner.FOLDER / "tc-testing"
    if not (folder / "tdc.py").exists():
        pytest.skip("the tree has no tc-testing/tdc.py")
    names = {name.upper(): shutil.which(name) for name in ("tc", "ip", "ethtool")}
    (folder / "tdc_config_local.py").write_text(_LOCAL.format(names=names))
    # Loaded because tdc.py adds a device of its kind, it makes two more that nobody removes.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        modules.load("ifb", "numifbs=0")
    kselftest_runner.run("tc-testing", (sys.executable, "./tdc.py", "-c", "ct"), _SECONDS)
