# SPDX-License-Identifier: GPL-2.0-only
"""Tests that run in the guest, in the kernel under test; docs/contract.md lists their clauses."""
