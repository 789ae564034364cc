# SPDX-License-Identifier: GPL-2.0-only
"""Tests of snoop tables: flow tables that mirror every flow of their netns (clauses SN)."""
