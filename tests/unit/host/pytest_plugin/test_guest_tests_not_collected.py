# SPDX-License-Identifier: GPL-2.0-only
"""Guest tests never run on the host by accident, whatever folder is named."""

import subprocess
import sys

import pytest

from fixtures.host.util.paths import ROOT


@pytest.mark.parametrize("folder", ["tests/canary", "."])
def test_guest_tests_are_not_collected_without_a_machine(folder: str) -> None:
    # Without a test to run nothing is executed; the listing shows what would have been.
    probe = (
        "import pytest, sys\n"
        "class Stop:\n"
        "    def pytest_runtestloop(self, session):\n"
        "        print(*[i.nodeid for i in session.items], sep='\\n')\n"
        "        return True\n"
        f"sys.exit(pytest.main(['-q', {folder!r}], plugins=[Stop()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = done.stdout.splitlines()
    assert any(line.startswith("tests/canary/test_verdicts.py::") for line in found), done.stderr
    assert not [
        line for line in found if line.startswith(("tests/canary/faulty_tests/", "selftests/"))
    ]
