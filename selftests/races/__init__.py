# SPDX-License-Identifier: GPL-2.0-only
"""Race tests (clauses RT): stress-tested pairs of actors and forced interleavings."""
