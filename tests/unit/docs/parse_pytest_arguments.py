# SPDX-License-Identifier: GPL-2.0-only
"""Parses command lines for pytest with the suite's plugins, and runs nothing.

Reads a JSON list of argument lists on standard input; prints those that pytest refuses.
"""

import json
import sys

import pytest


class _StopAfterParsing:
    """Ends the run as soon as the options are known."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self) -> int:
        """Return an exit status in place of a test session."""
        return 0


def main() -> None:
    """Parse every list."""
    refused = [
        arguments
        for arguments in json.load(sys.stdin)
        if pytest.main([*arguments, "-p", "no:cacheprovider"], plugins=[_StopAfterParsing()])
    ]
    print(json.dumps(refused))


if __name__ == "__main__":
    main()
