# SPDX-License-Identifier: GPL-2.0-only
"""Fixture groups: tests with the same wide-scoped fixtures share a snapshot layer."""

import pytest

from fixtures.guest.pytest_plugin.topology_fixtures import private_scope
from fixtures.host.pytest_plugin import fixture_groups
from fixtures.host.pytest_plugin.fixture_groups import fixture_group

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.fixture(scope="session", params=["plain", "nat"])
def router(request): pass

@pytest.fixture(scope="module")
def table(router): pass

@pytest.fixture
def narrow(): pass

def everywhere(fixture_name, config): return "session"

@pytest.fixture(scope=everywhere)
def decided(): pass

def test_decided(decided): pass
def test_alone(narrow, tmp_path): pass
def test_routed(router): pass
def test_routed_too(router, narrow): pass
def test_tabled(table): pass
"""


@pytest.fixture
def items(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> dict[str, pytest.Item]:
    monkeypatch.setattr(fixture_groups, "_OUR_MODULES", ("test_",))
    return {item.name: item for item in pytester.getitems(TESTS)}


def test_without_wide_fixtures_has_no_group(items: dict[str, pytest.Item]) -> None:
    assert fixture_group(items["test_alone"]) is None


def test_same_fixtures_have_same_group(items: dict[str, pytest.Item]) -> None:
    one, two = (
        fixture_group(items["test_routed[nat]"]),
        fixture_group(items["test_routed_too[nat]"]),
    )
    assert one
    assert two
    assert one.key == two.key


def test_other_parameter_has_other_group(items: dict[str, pytest.Item]) -> None:
    one, two = fixture_group(items["test_routed[nat]"]), fixture_group(items["test_routed[plain]"])
    assert one
    assert two
    assert one.key != two.key


def test_widest_fixture_is_set_up_first(items: dict[str, pytest.Item]) -> None:
    group = fixture_group(items["test_tabled[nat]"])
    assert group
    assert group.fixtures == ("router", "table")


def test_dynamic_scope_is_resolved(items: dict[str, pytest.Item]) -> None:
    group = fixture_group(items["test_decided"])
    assert group
    assert group.fixtures == ("decided",)


def test_private_router_scope_is_session_but_function_with_native(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert private_scope("own_router", pytestconfig) == "session"
    monkeypatch.setattr(pytestconfig.option, "native", True)
    assert private_scope("own_router", pytestconfig) == "function"
