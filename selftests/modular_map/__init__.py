# SPDX-License-Identifier: GPL-2.0-only
"""Tests of BPF map types that are registered by modules (clauses MM)."""
