# SPDX-License-Identifier: GPL-2.0-only
"""Process group: commands of several threads that end together."""

from pathlib import Path

import pytest

from fixtures.host.util.stoppable_subprocesses import ProcessGroup


def test_stopped_group_refuses_new_commands(tmp_path: Path) -> None:
    processes = ProcessGroup()
    assert processes.run(["echo", "yes"], tmp_path).stdout == "yes\n"
    processes.stop()
    with pytest.raises(InterruptedError):
        processes.run(["echo", "no"], tmp_path)
