# SPDX-License-Identifier: GPL-2.0-only
"""What holds for all tests of the harness."""

from hypothesis import settings

# How long an input takes says how busy the machine is.  The same inputs in every run: what
# fails fails everywhere, and a change is not blamed for an input that nobody had tried.
# `--hypothesis-profile wide` tries new ones.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.register_profile("wide", deadline=None, max_examples=2000)
settings.load_profile("unit")
