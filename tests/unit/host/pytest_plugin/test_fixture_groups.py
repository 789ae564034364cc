# SPDX-License-Identifier: GPL-2.0-only
"""Which tests share a layer: those whose wide-scoped fixtures are the same."""

import pytest

from fixtures.guest.pytest_plugin.fixtures import where_nobody_else_is
from fixtures.host.pytest_plugin import fixture_groups
from fixtures.host.pytest_plugin.fixture_groups import group_of

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
    monkeypatch.setattr(fixture_groups, "_OURS", ("test_",))
    return {item.name: item for item in pytester.getitems(TESTS)}


def test_a_test_without_wide_fixtures_has_no_group(items: dict[str, pytest.Item]) -> None:
    assert group_of(items["test_alone"]) is None


def test_the_same_fixtures_make_the_same_group(items: dict[str, pytest.Item]) -> None:
    one, two = group_of(items["test_routed[nat]"]), group_of(items["test_routed_too[nat]"])
    assert one
    assert two
    assert one.key == two.key


def test_another_parameter_makes_another_group(items: dict[str, pytest.Item]) -> None:
    one, two = group_of(items["test_routed[nat]"]), group_of(items["test_routed[plain]"])
    assert one
    assert two
    assert one.key != two.key


def test_the_widest_is_set_up_first(items: dict[str, pytest.Item]) -> None:
    group = group_of(items["test_tabled[nat]"])
    assert group
    assert group.fixtures == ("router", "table")


def test_a_scope_that_is_decided_later_counts_as_what_it_is(items: dict[str, pytest.Item]) -> None:
    group = group_of(items["test_decided"])
    assert group
    assert group.fixtures == ("decided",)


def test_own_router_is_wide_but_where_all_tests_have_one_kernel(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert where_nobody_else_is("own_router", pytestconfig) == "session"
    monkeypatch.setattr(pytestconfig.option, "here", True)
    assert where_nobody_else_is("own_router", pytestconfig) == "function"
