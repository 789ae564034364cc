# SPDX-License-Identifier: GPL-2.0-only
"""Oracles and a reference model in Python; random tests compare the kernel with them."""
