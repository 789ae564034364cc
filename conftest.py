# SPDX-License-Identifier: GPL-2.0-only
"""Loads the pytest plugins of guest and host; nothing else belongs here."""

pytest_plugins = [
    "fixtures.guest.pytest_plugin",
    "fixtures.guest.runtime.local_mode",
    "fixtures.host.pytest_plugin.options",
    "fixtures.host.pytest_plugin.hooks",
]
