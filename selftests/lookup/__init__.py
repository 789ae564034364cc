# SPDX-License-Identifier: GPL-2.0-only
"""Lookups in the flow map: hits, misses, values, timeouts and iteration (clauses FM)."""
