# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of booted machines across runs."""

import os
from pathlib import Path

from fixtures.host.pytest_plugin.run_setup import prune


def test_states_used_last_are_kept(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "newer", "old", "oldest"]):
        (tmp_path / name / "state").mkdir(parents=True)
        os.utime(tmp_path / name / "state", (100 - age, 100 - age))
    prune(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "newer"}


def test_what_never_became_a_state_goes_in_its_turn(tmp_path: Path) -> None:
    (tmp_path / "whole/state").mkdir(parents=True)
    for name, age in (("half", 10), ("being-made", 0)):
        (tmp_path / name / "state.7.part").mkdir(parents=True)
        os.utime(tmp_path / name, (200 - age, 200 - age))
    os.utime(tmp_path / "whole/state", (195, 195))
    prune(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"being-made", "whole"}
