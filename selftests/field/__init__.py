# SPDX-License-Identifier: GPL-2.0-only
"""Tests on the rulesets and topologies of real routers, with the source table as the oracle."""
