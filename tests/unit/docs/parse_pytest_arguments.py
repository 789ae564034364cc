# SPDX-License-Identifier: GPL-2.0-only
"""Parses command lines for pytest with the suite's plugins, and runs nothing.

Reads a JSON list of argument lists on standard input; prints those that pytest refuses.
"""

import json
import sys
from collections.abc import Generator, Sequence

import pytest


class _ParsedError(Exception):
    """The options were accepted."""


class _StopAfterParsing:
    """Ends pytest as soon as the options are known."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self) -> Generator[None, int, int]:
        """Raise before any other implementation, such as the harness's, which starts a VM."""
        raise _ParsedError
        yield  # makes this a hook wrapper


def _accepts(arguments: Sequence[str]) -> bool:
    try:
        pytest.main([*arguments], plugins=[_StopAfterParsing()])
    except _ParsedError:
        return True
    return False


def main() -> None:
    """Parse every list."""
    lists = json.load(sys.stdin)
    print(json.dumps([arguments for arguments in lists if not _accepts(arguments)]))


if __name__ == "__main__":
    main()
