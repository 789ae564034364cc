# SPDX-License-Identifier: GPL-2.0-only
"""The kernel against models in Python: a whole life in random steps, and every refusal."""
