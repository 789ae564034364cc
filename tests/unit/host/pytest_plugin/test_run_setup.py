# SPDX-License-Identifier: GPL-2.0-only
"""Set-up of a run: pruning of the snapshot cache, and the plugin in the guest."""

import os
from pathlib import Path

from fixtures.host.pytest_plugin.run_setup import GUEST_PLUGIN, prune_snapshots
from fixtures.host.util.paths import ROOT


def test_prune_keeps_most_recently_used_snapshots(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "newer", "old", "oldest"]):
        (tmp_path / name / "state").mkdir(parents=True)
        os.utime(tmp_path / name / "state", (100 - age, 100 - age))
    prune_snapshots(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "newer"}


def test_prune_removes_stale_partial_snapshots(tmp_path: Path) -> None:
    (tmp_path / "whole/state").mkdir(parents=True)
    for name, age in (("half", 10), ("being-made", 0)):
        (tmp_path / name / "state.7.part").mkdir(parents=True)
        os.utime(tmp_path / name, (200 - age, 200 - age))
    os.utime(tmp_path / "whole/state", (195, 195))
    prune_snapshots(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"being-made", "whole"}


def test_guest_plugin_is_a_delivered_package() -> None:
    """The host names the plugin of the guest as text: neither imports the other."""
    assert (ROOT / GUEST_PLUGIN.replace(".", "/") / "__init__.py").exists()
