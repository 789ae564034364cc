# SPDX-License-Identifier: GPL-2.0-only
"""The flow map used for what it was meant for: an XDP program that forwards by it alone."""
