# SPDX-License-Identifier: GPL-2.0-only
"""Renamed options: old and new spellings do the same, and only the old one warns."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.host.util import deprecated_options
from fixtures.host.util.deprecated_options import add_renamed_option

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def fresh_warnings() -> Iterator[None]:
    """Forget which warnings this process has printed."""
    deprecated_options._warn.cache_clear()
    yield
    deprecated_options._warn.cache_clear()


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    """Return a parser with a renamed switch, a renamed value and a renamed list."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add_renamed_option(add, "--soak", old=("--campaign",), action="store_true", help="run long")
    add_renamed_option(
        add, "--jobs", "-j", old=("--machines",), type=int, default=2, metavar="N", help="workers"
    )
    add_renamed_option(
        add, "--from", old=("--of",), dest="folders", type=Path, action="append", default=None
    )
    return parser


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--campaign"], ["--soak"]),
        (["--machines", "3"], ["--jobs", "3"]),
        (["--machines=3"], ["-j3"]),
        (["--of", "a", "--of", "b"], ["--from", "a", "--from", "b"]),
    ],
    ids=["switch", "value", "value-with-equals", "list"],
)
def test_old_spelling_parses_as_new_one(
    parser: argparse.ArgumentParser, old: list[str], new: list[str]
) -> None:
    assert parser.parse_args(old) == parser.parse_args(new)


def test_defaults_are_those_of_the_new_option(parser: argparse.ArgumentParser) -> None:
    assert vars(parser.parse_args([])) == {"soak": False, "jobs": 2, "folders": None}


def test_old_spelling_warns_once_and_names_the_new_one(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    parser.parse_args(["--campaign"])
    parser.parse_args(["--campaign"])
    assert capsys.readouterr().err == (
        "warning: --campaign has been renamed to --soak; the next release drops --campaign\n"
    )


def test_new_spelling_does_not_warn(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    parser.parse_args(["--soak", "--jobs", "1"])
    assert capsys.readouterr().err == ""


def test_help_lists_new_spelling_only(parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    assert "--soak" in text
    assert "--campaign" not in text


def test_old_spelling_with_bad_value_is_refused(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--machines", "many"])
    assert "argument --machines: invalid int value: 'many'" in capsys.readouterr().err


PLUGIN = """
from fixtures.host.util.deprecated_options import add_renamed_option

def pytest_addoption(parser):
    group = parser.getgroup("suite")
    add_renamed_option(group.addoption, "--soak", old=("--campaign",), metavar="TIME", default="1h")

def pytest_report_header(config):
    return f"soak={config.getoption('soak')}"
"""


@pytest.mark.parametrize(
    ("argument", "header", "warnings"),
    [([], "soak=1h", 0), (["--soak=2h"], "soak=2h", 0), (["--campaign=2h"], "soak=2h", 1)],
    ids=["default", "new", "old"],
)
def test_pytest_option_is_renamed(
    pytester: pytest.Pytester, argument: list[str], header: str, warnings: int
) -> None:
    pytester.makepyfile(soak_plugin=PLUGIN)
    pytester.syspathinsert()
    pytester.syspathinsert(str(Path(__file__).parents[4]))
    done = pytester.runpytest_inprocess("-p", "soak_plugin", *argument)
    done.stdout.fnmatch_lines([header])
    assert done.stderr.str().count("--campaign has been renamed to --soak") == warnings
