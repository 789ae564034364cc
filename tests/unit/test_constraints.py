# SPDX-License-Identifier: GPL-2.0-only
"""constraints.txt pins every package of the dependency groups, with all that these need."""

import ast
import configparser
import importlib.metadata
import re
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fixtures.host.rootfs.python_runtime import with_dependencies
from fixtures.host.util.paths import ROOT


def pins() -> dict[str, str]:
    """Return the pinned version of each package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [re.fullmatch(r"([a-z0-9-]+)==(\S+)", line) for line in lines if line[:1] not in "#"]
    assert all(found)
    return {match[1]: match[2] for match in found if match}


def requirements() -> dict[str, Requirement]:
    """Return the requirements of all dependency groups by name."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    texts = [item for items in groups.values() for item in items if isinstance(item, str)]
    found = [Requirement(text) for text in texts]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_every_requirement_is_pinned_to_an_allowed_version() -> None:
    pinned = pins()
    for name, requirement in requirements().items():
        assert name in pinned, name
        assert requirement.specifier.contains(pinned[name]), requirement


def test_dependencies_of_requirements_are_pinned() -> None:
    installed = []
    for name in requirements():
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a group that this environment does not have
        installed.append(name)
    needed = {canonicalize_name(each.name) for each in with_dependencies(installed)}
    assert needed - set(pins()) == set()


def test_tox_installs_with_constraints() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert "PIP_CONSTRAINT = constraints.txt" in tox["testenv"]["set_env"]
    for name in tox.sections():
        if name != "testenv" and "set_env" in tox[name]:
            assert "{[testenv" in tox[name]["set_env"], name


def test_every_imported_package_is_a_requirement() -> None:
    """A package that only another one needs can be gone with its next version."""
    imported = set()
    for top in ("fixtures", "selftests", "tests"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])
    distributions = importlib.metadata.packages_distributions()
    declared = {*requirements(), "flowmap-suite"}
    others = imported - sys.stdlib_module_names - {"fixtures", "selftests", "tests"}
    missing = {
        name
        for name in others
        if name in distributions
        and not declared & {canonicalize_name(each) for each in distributions[name]}
    }
    assert missing == set()
