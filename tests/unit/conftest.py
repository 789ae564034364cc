# SPDX-License-Identifier: GPL-2.0-only
"""Settings of Hypothesis for all unit tests."""

from hypothesis import settings

# No deadline: the time of an example depends on the machine's load.  The same examples in every
# run, so that a change does not fail for an example that was never tried before.
# `--hypothesis-profile wide` tries new ones.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.register_profile("wide", deadline=None, max_examples=2000)
settings.load_profile("unit")
