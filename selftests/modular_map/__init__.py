# SPDX-License-Identifier: GPL-2.0-only
"""Map types that live in modules (clauses MM)."""
