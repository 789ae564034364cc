# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the tests of the host's pytest plugin."""

import pytest

from tests.unit.host.pytest_plugin.harness_fakes import Harness, install_fakes


@pytest.fixture
def harness(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """Fakes for kernel and VMs in pytest runs in this process."""
    for name in ("TOX_ENV_NAME", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    return install_fakes(pytester.path, monkeypatch)
