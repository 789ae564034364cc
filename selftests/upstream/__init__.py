# SPDX-License-Identifier: GPL-2.0-only
"""The kernel tree's own selftests of this area, run unmodified."""
