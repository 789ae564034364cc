# SPDX-License-Identifier: GPL-2.0-only
"""``tox -e lint`` and pre-commit run the same commands with the same packages."""

import re
import tomllib

from fixtures.host.util.paths import ROOT
from tests.unit.docs.documented_commands import tox_commands


def test_pre_commit_runs_the_commands_of_tox() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"entry: (.+)", text) == tox_commands()["lint"]


def test_pre_commit_requires_the_packages_of_tox() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = set(re.findall(r'additional_dependencies: \["(.+)"\]', text))
    assert required == set(project["dependency-groups"]["lint"])
