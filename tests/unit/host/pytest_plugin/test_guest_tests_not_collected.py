# SPDX-License-Identifier: GPL-2.0-only
"""Guest tests are never collected on the host, whichever directory is selected."""

import subprocess
import sys

import pytest

from fixtures.host.util.paths import ROOT


@pytest.mark.parametrize("folder", ["tests/canary", "."], ids=["canary", "root"])
def test_guest_tests_without_vm_are_not_collected(folder: str) -> None:
    # The script lists the tests instead of running them: a guest test could crash the host.
    script = (
        "import pytest, sys\n"
        "class ListOnly:\n"
        "    def pytest_runtestloop(self, session):\n"
        "        print(*[i.nodeid for i in session.items], sep='\\n')\n"
        "        return True\n"
        f"sys.exit(pytest.main(['-q', {folder!r}], plugins=[ListOnly()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    collected = done.stdout.splitlines()
    assert any(line.startswith("tests/canary/test_verdicts.py::") for line in collected), (
        done.stderr
    )
    assert not [
        line for line in collected if line.startswith(("tests/canary/faulty_tests/", "selftests/"))
    ]
