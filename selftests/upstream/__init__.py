# SPDX-License-Identifier: GPL-2.0-only
"""Upstream's own tests: the scripts of the kernel tree, run as they are."""
