# SPDX-License-Identifier: GPL-2.0-only
"""Tests that run inside the kernel under test; see docs/contract.md for what they cover."""
