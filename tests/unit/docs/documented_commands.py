# SPDX-License-Identifier: GPL-2.0-only
"""Finds the commands in README.md and docs, and splits them into tox environment and arguments."""

import configparser
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from fixtures.host.util.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_COMMAND = re.compile(r"(?:tox|\./run-tox|pytest) (?=\S)|(?:tox|\./run-tox)$")


@dataclass(frozen=True)
class Command:
    """A command as it stands in a document.

    Attributes:
        text: the line, without a comment at its end.
        environment: the tox environment; empty for all, or for pytest itself.
        arguments: what follows ``--``, or pytest's arguments.
    """

    text: str
    environment: str
    arguments: tuple[str, ...]

    @property
    def is_pytest(self) -> bool:
        """Whether the document calls pytest without tox."""
        return self.text.startswith("pytest ")


def commands() -> list[Command]:
    """Return every command of every document once, in alphabetical order."""
    found = {text for path in DOCUMENTS for text in _texts(path.read_text())}
    return [_split(text) for text in sorted(found)]


def _texts(document: str) -> Iterator[str]:
    """Yield commands in code blocks and in code spans."""
    fenced = False
    for line in document.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        code = line.strip().removeprefix("$ ")
        if (fenced or line.startswith("    ")) and _COMMAND.match(code):
            yield " ".join(shlex.quote(word) for word in shlex.split(code, comments=True))
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"(?ms)^ *```.*?^ *```", "", document)):
        code = " ".join(span.split())
        if _COMMAND.match(code):
            yield code


def _split(text: str) -> Command:
    words = shlex.split(text)
    if words[0] == "pytest":
        return Command(text, "", tuple(words[1:]))
    at = words.index("--") if "--" in words else len(words)
    tox, arguments = words[1:at], tuple(words[at + 1 :])
    if not tox:
        return Command(text, "", arguments)
    if len(tox) != 2 or tox[0] != "-e":
        raise ValueError(f"{text}: expected `tox -e ENVIRONMENT [-- ARGUMENTS]`")
    return Command(text, tox[1], arguments)


def tox_commands() -> dict[str, list[str]]:
    """Return the command lines of each tox environment."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    return {
        name.removeprefix("testenv:"): tox[name]["commands"].strip().splitlines()
        for name in tox.sections()
        if name.startswith("testenv:")
    }
