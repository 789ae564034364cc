# SPDX-License-Identifier: GPL-2.0-only
"""Settings of Hypothesis, and a cache folder of their own, for all unit tests."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline: the time of an example depends on the machine's load.  The same examples in every
# run, so that a change does not fail for an example that was never tried before.
# `--hypothesis-profile wide` tries new ones.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.register_profile("wide", deadline=None, max_examples=2000)
settings.load_profile("unit")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests from writing to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _default_sigint_handler() -> Iterator[None]:
    """Handle SIGINT: background jobs of a shell ignore it, and subprocesses inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
