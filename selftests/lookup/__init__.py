# SPDX-License-Identifier: GPL-2.0-only
"""The flow map (clauses FM)."""
