# SPDX-License-Identifier: GPL-2.0-only
"""Each command in README.md and docs is accepted by the program that it calls."""

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from fixtures.host.util.paths import ROOT
from tests.unit.docs.documented_commands import Command, commands, tox_commands

COMMANDS = commands()
ENVIRONMENTS = {name: lines[-1] for name, lines in tox_commands().items()}


class _ParsedError(Exception):
    """The arguments were accepted."""


def test_commands_were_found() -> None:
    assert {"vm", "mutants", "coverage", "report"} <= {one.environment for one in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: re.sub(r"\W+", "-", one.text))
def test_environment_of_documented_command_exists(command: Command) -> None:
    assert command.environment in {"", *ENVIRONMENTS}


@pytest.mark.parametrize(
    "command",
    [one for one in COMMANDS if "fixtures.host" in ENVIRONMENTS.get(one.environment, "")],
    ids=lambda one: re.sub(r"\W+", "-", one.text),
)
def test_arguments_of_documented_command_are_parsed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(ENVIRONMENTS[command.environment].replace("{posargs}", ""))
    _, _, package, *fixed = words

    def stop(result: object) -> object:
        raise _ParsedError(result)

    for name in ("parse_args", "parse_known_args"):
        real = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(
            argparse.ArgumentParser,
            name,
            lambda *args, real=real, **named: stop(real(*args, **named)),
        )
    with pytest.raises(_ParsedError):
        importlib.import_module(f"{package}.cli").main([*fixed, *command.arguments])


def test_pytest_accepts_documented_arguments() -> None:
    lists = [
        ["-o", "testpaths=selftests", *one.arguments]
        for one in COMMANDS
        if one.is_pytest or ENVIRONMENTS.get(one.environment, "").startswith("pytest")
    ]
    assert len(lists) > 10
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.docs.parse_pytest_arguments"],
        input=json.dumps(lists),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr
