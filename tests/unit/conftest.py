# SPDX-License-Identifier: GPL-2.0-only
"""What holds for all tests of the harness."""

from hypothesis import settings

# How long an input takes says how busy the machine is.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
