# SPDX-License-Identifier: GPL-2.0-only
"""Wires the plugins of the two rooms into pytest; nothing else belongs here."""

pytest_plugins = [
    "fixtures.guest.pytest_plugin.fixtures",
    "fixtures.guest.runtime.local_mode",
    "fixtures.host.pytest_plugin",
]
