# SPDX-License-Identifier: GPL-2.0-only
"""tox loads this file: SIGTERM ends tox and its command like Ctrl-C, with a partial report.

Without a handler tox dies at once, and its command is killed or goes on alone.
"""

from fixtures.host.util.sigterm import handle_sigterm

handle_sigterm(forward=True)
