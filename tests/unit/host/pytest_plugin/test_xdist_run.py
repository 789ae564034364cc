# SPDX-License-Identifier: GPL-2.0-only
"""A run with xdist workers in processes of their own, with fakes for kernel and VMs."""

import json

import pytest

from fixtures.host.util.paths import ROOT
from tests.unit.host.pytest_plugin.harness_fakes import PLUGINS, Harness

pytest_plugins = ["pytester"]

# Installs the fakes in the controller and in each worker; one test kills its worker.
CONFTEST = """
import os
from pathlib import Path

import pytest

from tests.unit.host.pytest_plugin.harness_fakes import install_fakes

harness = install_fakes(Path(__file__).parent, pytest.MonkeyPatch())


def crash(item):
    if item.name == "test_fails":
        os._exit(9)


harness.before_test = crash
"""


def test_crashed_worker_is_infra_and_other_test_is_recorded(
    harness: Harness, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest(CONFTEST)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = pytester.runpytest_subprocess(*PLUGINS, "-n", "2", "--dist", "load", "selftests")
    assert result.ret == 1
    summary = json.loads((harness.context.report / "summary.json").read_text())
    verdicts = {test["nodeid"]: test["verdict"] for test in summary["tests"]}
    assert verdicts == {
        "selftests/test_guest.py::test_fails": "infra",
        "selftests/test_guest.py::test_passes": "passed",
    }
    (passed,) = (test for test in summary["tests"] if test["verdict"] == "passed")
    assert passed["worker"] in ("gw0", "gw1")
    (crashed,) = (test for test in summary["tests"] if test["verdict"] == "infra")
    assert "crashed" in crashed["message"]
