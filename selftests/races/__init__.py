# SPDX-License-Identifier: GPL-2.0-only
"""Everything against everything (clauses RT)."""
