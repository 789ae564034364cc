# SPDX-License-Identifier: GPL-2.0-only
"""The pytest options, in their new and old spellings."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.host.util import deprecated_options

pytest_plugins = ["pytester"]

PLUGIN = "fixtures.host.pytest_plugin.options"


@pytest.fixture(autouse=True)
def _controller_that_has_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    deprecated_options._warn.cache_clear()


def _parse(pytester: pytest.Pytester, *args: str) -> pytest.Config:
    return pytester.parseconfig("-p", PLUGIN, *args)


def test_options_without_arguments_have_defaults(pytester: pytest.Pytester) -> None:
    config = _parse(pytester)
    names = ("vmconfig", "accel", "no_snapshots", "native", "upstream", "seed", "soak")
    assert [config.getoption(name) for name in names] == [
        None, "auto", False, False, False, None, None,
    ]  # fmt: skip
    assert config.getoption("run_first") == []
    assert config.getoption("no_history") is False


SPELLINGS = [
    ("--native", "--here", [], "native", True),
    ("--soak", "--campaign", ["2.5"], "soak", 2.5),
    ("--run-first", "--witness", ["a.py::t"], "run_first", ["a.py::t"]),
    ("--no-history", "--no-ledger", [], "no_history", True),
]


@pytest.mark.parametrize(
    ("flag", "old_flag", "values", "dest", "expected"), SPELLINGS, ids=[s[3] for s in SPELLINGS]
)
def test_old_spelling_has_same_effect_and_warns_once(
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    old_flag: str,
    values: list[str],
    dest: str,
    expected: Any,
) -> None:
    assert _parse(pytester, flag, *values).getoption(dest) == expected
    assert capsys.readouterr().err == ""
    assert _parse(pytester, old_flag, *values).getoption(dest) == expected
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {old_flag} has been renamed to {flag}")
    assert warning.count("\n") == 1


def test_old_and_new_spelling_can_be_combined(pytester: pytest.Pytester) -> None:
    config = _parse(pytester, "--run-first", "a", "--witness=b", "--run-first=c")
    assert config.getoption("run_first") == ["a", "b", "c"]


def test_xdist_worker_does_not_warn(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert _parse(pytester, "--here").getoption("native") is True
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", ["0", "soon"])
def test_soak_without_positive_minutes_is_rejected(pytester: pytest.Pytester, value: str) -> None:
    result = pytester.runpytest_inprocess("-p", PLUGIN, "--soak", value)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--soak: * is not a number of minutes above 0"])


def test_kernel_options_are_declared(pytester: pytest.Pytester) -> None:
    config = _parse(pytester, "--kernel-tree", "/src/linux", "--apply-series")
    assert config.getoption("kernel_tree") == Path("/src/linux")
    assert config.getoption("kernel_apply_series") is True
