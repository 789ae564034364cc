# SPDX-License-Identifier: GPL-2.0-only
"""Flow tables that hear of every flow (clauses SN)."""
