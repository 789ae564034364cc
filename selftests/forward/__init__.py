# SPDX-License-Identifier: GPL-2.0-only
"""The flow map in use: an XDP program forwards packets by map lookups alone."""
